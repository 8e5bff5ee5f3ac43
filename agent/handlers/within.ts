/** The promise's value, or what `onLate` gives after `limitMs`. @throws the signal's reason */
export async function within<T, U>(
  promise: Promise<T>,
  limitMs: number,
  signal: AbortSignal | undefined,
  onLate: () => U,
): Promise<T | U> {
  signal?.throwIfAborted()
  const late = Promise.withResolvers<'late'>()
  const timer = setTimeout(() => late.resolve('late'), limitMs)
  const onAbort = (): void => late.reject(signal?.reason)
  signal?.addEventListener('abort', onAbort, { once: true })
  try {
    const first = await Promise.race([promise.then((value) => ({ value })), late.promise])
    return first === 'late' ? onLate() : first.value
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', onAbort)
  }
}

/** Waits for all of them, also after one has failed: nothing goes on unseen. @throws the first failure */
export async function allEnded(work: readonly Promise<unknown>[]): Promise<void> {
  for (const result of await Promise.allSettled(work)) {
    if (result.status === 'rejected') throw result.reason
  }
}
