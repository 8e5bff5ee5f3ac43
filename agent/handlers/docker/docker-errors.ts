import { Fault } from '#shared/fault.ts'
import { timeLimit } from '#shared/time-limit.ts'
import type { HandlerSpec, SpareSpec } from '../engine.ts'

const UNREACHABLE: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ENOENT',
  'EACCES',
  'EPERM',
  'EPIPE',
  'ENOTSOCK',
])

/** HTTP status of an engine's error answer; 0 when the error is not an answer. */
export function statusOf(error: unknown): number {
  return error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number'
    ? error.statusCode
    : 0
}

/** What the engine said, without docker-modem's wrapping. */
export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const json: unknown = 'json' in error ? error.json : undefined
  if (typeof json === 'object' && json !== null && 'message' in json) return String(json.message)
  return error.message
}

/** True when no answer came at all: the daemon is down, restarting, out of reach or stuck. */
export function isUnreachable(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  // docker-modem reports a connection that ends in the middle of an answer as one of these two texts.
  if (error.message === 'socket hang up' || error.message === 'aborted') return true
  if (error.name === 'TimeoutError') return true
  return 'code' in error && typeof error.code === 'string' && UNREACHABLE.has(error.code)
}

/** The fault for an error of any engine call; a fault passes as it is, and so does the caller's own abort. */
export function engineFault(error: unknown, what: string, socketPath: string): unknown {
  if (error instanceof Fault || (error instanceof Error && error.name === 'AbortError'))
    return error
  if (isUnreachable(error)) {
    return new Fault(
      'ENGINE_UNAVAILABLE',
      `Docker does not answer at ${socketPath} (${what}): is dockerd running, and may this user use its socket?`,
      { what, socketPath },
      { cause: error },
    )
  }
  return new Fault(
    'INTERNAL',
    `Docker refused (${what}): ${messageOf(error)}`,
    { what, status: statusOf(error) },
    { cause: error },
  )
}

/** Start failures name the handler; "no such image" says how to get one. */
export function startFault(error: unknown, spec: HandlerSpec | SpareSpec, image: string): unknown {
  if (!Fault.is(error, 'INTERNAL')) return error
  const { id, runtime } = spec
  if (error.details['status'] === 404 && /no such image/i.test(messageOf(error.cause))) {
    return new Fault(
      'IMAGE_MISSING',
      `Docker does not have the image ${image} of runtime ${runtime} any more; \`npm start\` makes it again`,
      { runtime, image },
      { cause: error },
    )
  }
  const what = 'fn' in spec ? `handler of ${spec.fn}` : `spare of ${runtime}`
  const purpose = 'fn' in spec ? { fn: spec.fn, release: spec.release } : {}
  return new Fault(
    'HANDLER_START',
    `Docker cannot start a ${what}: ${messageOf(error.cause)}`,
    { ...purpose, handler: id, status: statusOf(error.cause) },
    { cause: error },
  )
}

/** True when the engine lacks the program that `Init` asks for: some distributions have it in a package of its own. */
export function isInitMissing(error: unknown): boolean {
  if (!Fault.is(error, 'INTERNAL')) return false
  return /docker-init.*(?:not found|no such file)/is.test(messageOf(error.cause))
}

/** What can be done to a container that runs. */
export type Change = 'update' | 'pause' | 'unpause'

/** True when the container is as the change was to make it. */
export function isDoneAlready(error: unknown, change: Change): boolean {
  if (!Fault.is(error, 'INTERNAL') || change === 'update') return false
  // By the text, because the status is the one of other errors too: 409 or 500, by the engine's version.
  const done = change === 'pause' ? /is already paused/i : /is not paused/i
  return done.test(messageOf(error.cause))
}

/** Of a change that failed: the container is gone, or the engine refused. */
export function changeFault(error: unknown, change: Change, handlerId: string): unknown {
  if (!Fault.is(error, 'INTERNAL')) return error
  const status = statusOf(error.cause)
  const gone = status === 404 || status === 409
  return new Fault(
    gone ? 'FUNCTION_EXITED' : 'HANDLER_START',
    `Docker cannot ${change} handler ${handlerId}: ${messageOf(error.cause)}`,
    { handler: handlerId, status },
    { cause: error },
  )
}

/** Waits for a call that is over (with an error) on several HTTP statuses: they mean "done already". */
export async function unless(statuses: readonly number[], call: Promise<unknown>): Promise<void> {
  try {
    await call
  } catch (error) {
    if (!statuses.includes(statusOf(error))) throw error
  }
}

/**
 * Runs one engine call with a time limit of its own.
 *
 * The race is needed: docker-modem 5 never settles a call whose answer breaks off in the middle, which is what a killed
 * daemon leaves behind.
 */
export async function limited<T>(
  call: (signal: AbortSignal) => Promise<T>,
  limitMs: number,
  signal: AbortSignal,
): Promise<T> {
  const both = AbortSignal.any([signal, timeLimit(limitMs)])
  both.throwIfAborted()
  const aborted = Promise.withResolvers<never>()
  const onAbort = (): void => aborted.reject(both.reason)
  both.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([call(both), aborted.promise])
  } finally {
    both.removeEventListener('abort', onAbort)
  }
}
