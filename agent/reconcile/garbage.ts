import { LOG_KEYS } from '#shared/log-keys.ts'
import type { Workshop } from './apply.ts'
import type { FunctionState } from './function-state.ts'

/** Removes the bundles that no function has, had last, or could go back to. */
export async function collectGarbage({ functions, bundles, log }: Workshop): Promise<void> {
  try {
    // Not a list made now: removals take time, and a bundle may be deployed meanwhile.
    const removed = await bundles.retain((digest) =>
      functions.values().some((state) => isUsed(state, digest)),
    )
    if (removed.length > 0) log.info({ removed }, 'bundles removed')
  } catch (error) {
    log.warn({ [LOG_KEYS.err]: error }, 'bundles stay for now')
  }
}

function isUsed(state: FunctionState, digest: string): boolean {
  const { assignment, fallback, previousDigest, held } = state
  if (assignment?.artifact.digest === digest || previousDigest === digest) return true
  if (fallback?.assignment.artifact.digest === digest) return true
  return held.values().some(({ handler }) => handler.record.digest === digest)
}
