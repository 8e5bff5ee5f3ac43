import { setTimeout as sleep } from 'node:timers/promises'
import { Type } from 'typebox'
import { Compile } from 'typebox/compile'
import { Fault } from '#shared/fault.ts'
import type { NodeLogLine } from '#shared/schemas/api.ts'
import { LogLine } from '#shared/schemas/health.ts'
import { subjects } from '#shared/subjects.ts'
import type { Bus } from './bus.ts'
import { requestLogs } from './node-calls.ts'

const LEASE_MS = 30_000
const RENEW_MS = 10_000
/** Lines held for a reader that is slower than the function; the oldest go first. */
const LINES_HELD_MAX = 5_000
const linesValidator = Compile(Type.Array(LogLine))

export interface FollowOptions {
  readonly bus: Bus
  readonly fn: string
  readonly nodes: readonly string[]
  readonly tail: number
  readonly follow: boolean
}

/**
 * A function's log lines of several nodes: the last `tail` of each, in order of time, then new ones as they come.
 *
 * Nodes that do not answer are passed over when others do. While following, leases are renewed until the signal aborts
 * (it must, once the lines are no longer read); lines dropped for a slow reader are counted in a line of level `warn`.
 *
 * @throws Fault `NODE_OFFLINE` or `NODE_TIMEOUT` when no node answers
 */
export async function openLogs(
  options: FollowOptions,
  signal: AbortSignal,
): Promise<AsyncGenerator<NodeLogLine>> {
  const { bus, fn, nodes, tail, follow } = options
  if (!follow) return inOrder(await askAll(bus, nodes, { fn, tail, followMs: 0 }, signal))
  const live = new LineQueue(fn)
  // Subscribed before asking: at the seam a line may come twice, and is shown once; none gets lost.
  const subscriptions = nodes.map((node) =>
    bus.subscribe(subjects.log(node, fn), ({ data }) => live.push(node, parseLines(data))),
  )
  const end = () => {
    for (const unsubscribe of subscriptions) unsubscribe()
  }
  signal.addEventListener('abort', end, { once: true })
  try {
    const past = await askAll(bus, nodes, { fn, tail, followMs: LEASE_MS }, signal)
    void renew(options, signal)
    return joined(past, live, signal)
  } catch (error) {
    end()
    throw error
  }
}

async function* inOrder(lines: readonly NodeLogLine[]): AsyncGenerator<NodeLogLine> {
  yield* lines
}

async function* joined(
  past: readonly NodeLogLine[],
  live: LineQueue,
  signal: AbortSignal,
): AsyncGenerator<NodeLogLine> {
  yield* past
  const shown = new Set(past.map((line) => JSON.stringify(line)))
  for await (const line of live.read(signal)) {
    if (shown.size === 0 || !shown.delete(JSON.stringify(line))) yield line
  }
}

async function askAll(
  bus: Bus,
  nodes: readonly string[],
  request: { readonly fn: string; readonly tail: number; readonly followMs: number },
  signal: AbortSignal,
): Promise<NodeLogLine[]> {
  const answers = await Promise.allSettled(
    nodes.map(async (node) => ({ node, reply: await requestLogs(bus, node, request, signal) })),
  )
  const lines: NodeLogLine[] = []
  let answered = 0
  for (const answer of answers) {
    if (answer.status === 'rejected') continue
    answered += 1
    const { node, reply } = answer.value
    for (const line of reply.lines) lines.push({ node, ...line })
  }
  const failed = answers.find((answer) => answer.status === 'rejected')
  if (answered === 0 && failed !== undefined) throw Fault.from(failed.reason)
  if (request.tail === 0) return []
  return lines.toSorted((a, b) => a.atMs - b.atMs).slice(-request.tail)
}

async function renew({ bus, fn, nodes }: FollowOptions, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await sleep(RENEW_MS, undefined, { signal }).catch(() => undefined)
    if (signal.aborted) return
    // A node that is away comes back into the stream when it answers again.
    await Promise.allSettled(
      nodes.map((node) => requestLogs(bus, node, { fn, tail: 0, followMs: LEASE_MS }, signal)),
    )
  }
}

function parseLines(data: Uint8Array): LogLine[] {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(data))
    return linesValidator.Check(value) ? value : []
  } catch {
    return []
  }
}

class LineQueue {
  readonly #fn: string
  #lines: NodeLogLine[] = []
  #dropped = 0
  #wake: (() => void) | undefined

  constructor(fn: string) {
    this.#fn = fn
  }

  push(node: string, lines: readonly LogLine[]): void {
    for (const line of lines) {
      if (line.fn === this.#fn) this.#lines.push({ node, ...line })
    }
    const over = this.#lines.length - LINES_HELD_MAX
    if (over > 0) {
      this.#lines.splice(0, over)
      this.#dropped += over
    }
    this.#wake?.()
  }

  async *read(signal: AbortSignal): AsyncGenerator<NodeLogLine> {
    const onAbort = () => this.#wake?.()
    signal.addEventListener('abort', onAbort)
    try {
      while (!signal.aborted) {
        const lines = this.#lines
        this.#lines = []
        const [first] = lines
        if (first !== undefined && this.#dropped > 0) {
          yield {
            ...first,
            handler: 'controller',
            level: 'warn',
            text: `${this.#dropped} lines dropped: this reader is too slow`,
          }
          this.#dropped = 0
        }
        yield* lines
        if (this.#lines.length > 0 || signal.aborted) continue
        const woken = Promise.withResolvers<void>()
        this.#wake = woken.resolve
        await woken.promise
        this.#wake = undefined
      }
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }
}
