/**
 * A signal that aborts with a `TimeoutError` after so long, and does not keep the process alive: what `AbortSignal.timeout` gives, but
 * free when it is part of another signal.
 *
 * Node 24 keeps each `AbortSignal.any()` of a timeout that becomes part of another `any()` for good: an agent grew by some MiB an hour.
 */
export function timeLimit(ms: number): AbortSignal {
  const over = new AbortController()
  const message = 'The operation was aborted due to timeout'
  setTimeout(() => over.abort(new DOMException(message, 'TimeoutError')), ms).unref()
  return over.signal
}
