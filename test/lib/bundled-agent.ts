import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { coapClient, grpcCall } from './clients.ts'
import { machinePace } from './machine-pace.ts'
import type { NodeUnderTest } from './node-under-test.ts'
import { memoryOf } from './process-facts.ts'

/**
 * Twice what is promised of an idle machine: tests share theirs with builds and with each other. On a machine of its pace: see
 * `machinePace`.
 */
const START_MS_MAX = 1_000
const START_TRIES = 5
/** Above what it takes by a quarter: a bundle that has swallowed a second copy of something is above this. */
const RSS_MIB_MAX = 110
const RSS_READINGS = 5
const RSS_EVERY_MS = 500

/** Starts the agent by `command` and calls it by every protocol; fails when it starts slowly every time, or is grossly large. */
export async function startsWell(node: NodeUnderTest, command: readonly string[]): Promise<void> {
  const starts: { readonly openMs: number; readonly boundMs: number }[] = []
  const sizesMiB: number[] = []
  const within = (share: number) => starts.some(({ openMs, boundMs }) => openMs < boundMs * share)
  while (starts.length < START_TRIES && !within(0.5)) {
    const boundMs = START_MS_MAX * (await machinePace())
    await using agent = await node.start(command)
    starts.push({ openMs: agent.openMs, boundMs })
    sizesMiB.push(await settledMiB(agent.pid))
    const uri = `coap://127.0.0.1:${agent.ports.coap}/${node.functions[1]}`
    assert.match((await coapClient(uri, { payload: 'by coap' })).stdout, /by coap/)
    const request = { function: node.functions[2], payload: Buffer.from('by grpc') }
    const path = 'shoal.v1.Functions/Invoke'
    const answer = await grpcCall(`127.0.0.1:${agent.ports.grpc}`, path, request)
    assert.equal(answer.payload.toString(), 'by grpc')
    await agent.kill('SIGTERM')
  }
  // The quickest counts: what else runs on this machine only adds.
  assert.ok(within(1), `starts: ${JSON.stringify(starts)}`)
  assert.ok(Math.min(...sizesMiB) < RSS_MIB_MAX, `${sizesMiB.join()} MiB`)
}

/** The least of a few seconds: the garbage of a start goes, a second copy of something stays. */
async function settledMiB(pid: number): Promise<number> {
  let leastMiB = Number.POSITIVE_INFINITY
  for (let reading = 0; reading < RSS_READINGS; reading++) {
    await sleep(RSS_EVERY_MS)
    leastMiB = Math.min(leastMiB, memoryOf(pid).rssMiB)
  }
  return leastMiB
}
