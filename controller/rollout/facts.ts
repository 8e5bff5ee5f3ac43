import { stateDigest } from '#shared/state-digest.ts'
import { archFits, type Fleet } from '../fleet/index.ts'
import type { RolloutRow, Store } from '../store/index.ts'
import type { FleetFacts, NodeFact } from './plan.ts'

const GONE: NodeFact = {
  enrolled: false,
  presence: 'offline',
  sentGeneration: 0,
  acceptedGeneration: 0,
  reportGeneration: 0,
}

/** Looks at every node of a rollout. */
export async function observeRollout(
  store: Store,
  fleet: Fleet,
  rollout: RolloutRow,
): Promise<FleetFacts> {
  const release = await store.release(rollout.function, rollout.release)
  const facts = new Map<string, NodeFact>()
  for (const { node } of rollout.nodes) {
    const seen = await fleet.facts(node)
    if (seen === undefined) {
      facts.set(node, GONE)
      continue
    }
    const { row, command, life, presence, sentGeneration } = seen
    const beat = life?.heartbeat
    const report = beat?.functions.find(({ fn }) => fn === rollout.function)
    const issued =
      command !== undefined &&
      command.stateDigest === stateDigest(await store.assignments({ node }))
    facts.set(node, {
      enrolled: true,
      presence,
      sentGeneration,
      acceptedGeneration: command?.acceptedGeneration ?? 0,
      reportGeneration: beat?.generation ?? 0,
      ...(issued ? { issuedGeneration: command.generation } : {}),
      ...(life?.refusal === undefined ? {} : { refusal: life.refusal }),
      ...(report === undefined ? {} : { report }),
      ...(release === undefined || archFits(release.arch, row)
        ? {}
        : {
            unfit: {
              code: 'ARCH_MISMATCH',
              message: `release ${release.id} is built for ${release.arch}, this node is ${row.arch}: deploy again with arch=${row.arch}`,
            },
          }),
    })
  }
  return facts
}
