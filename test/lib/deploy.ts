import type { Release, Rollout } from '#shared/schemas/api.ts'
import type { ControllerScope } from './controller-scope.ts'
import { eventually } from './eventually.ts'
import { nodeFunction } from './source.ts'
import { TestNode, type TestNodeOptions } from './test-node.ts'

const CALL_TIMEOUT_MS = 30_000

/** For one call of the API in a test. */
export function signal(): AbortSignal {
  return AbortSignal.timeout(CALL_TIMEOUT_MS)
}

/** A connected node; resolves when the controller says it is online. */
export async function joinNode(
  { api }: ControllerScope,
  options: TestNodeOptions,
): Promise<TestNode> {
  const { token } = await api.createToken({}, signal())
  const node = await TestNode.join(token, options)
  await node.connect()
  await eventually(async () => {
    const view = await api.node(node.id, signal())
    return view.online && view.heartbeat !== undefined
  })
  return node
}

/** Uploads a function that needs no build. */
export async function deploy(
  { api }: ControllerScope,
  fn: string,
  version: number,
): Promise<{ release: Release; cached: boolean }> {
  const body = await nodeFunction(version)
  const { release, cached } = await api.createRelease(
    fn,
    { source: { kind: 'archive', type: 'application/x-tar', body } },
    () => undefined,
    signal(),
  )
  return { release, cached }
}

/** Rolls the newest release out and waits until the rollout is settled. */
export async function roll(
  { api }: ControllerScope,
  fn: string,
  more: {
    readonly selector?: string
    readonly release?: string
    readonly deadlineMs?: number
  } = {},
): Promise<Rollout> {
  const { id } = await api.createRollout({ function: fn, ...more }, signal())
  const snapshots = await collect(api.watchRollout(id, signal()))
  const last = snapshots.at(-1)
  if (last === undefined) throw new Error('the watch ended without a snapshot')
  return last
}

/** Everything an iterable yields. */
export async function collect<T>(values: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const value of values) all.push(value)
  return all
}
