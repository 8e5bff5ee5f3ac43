/**
 * Node's flags for the agent, chosen with `test/bench/cost.ts` and `test/bench/soak.ts`.
 *
 * - `--max-semi-space-size`: with the standard 16 MiB (three times, under load) a call costs no less, and garbage that has its bytes
 *   outside of the heap, such as bodies, waits longer. No difference between 1, 2 and 4 stood out from the noise.
 * - `--expose-gc`: for giving memory back when the work is over.
 */
export const AGENT_FLAGS: readonly string[] = ['--max-semi-space-size=2', '--expose-gc']

/**
 * The C library's settings for the agent; it reads them before Node runs. As it is, it keeps a pool per thread, and holes in them are
 * not given back: with these, 30 MiB less are left after load and a full collection, and under mixed load an agent does not grow by
 * hundreds of MiB an hour. Mappings only from 128 KiB on would spare CoAP some work (each datagram is read into 64 KiB, which
 * are new pages now), for more memory after load; who has the memory may set it in the agent's environment.
 */
export const AGENT_ENV: Readonly<Record<string, string>> = {
  MALLOC_ARENA_MAX: '1',
  MALLOC_MMAP_THRESHOLD_: '16384',
  MALLOC_TRIM_THRESHOLD_: '131072',
}
