import { LOG_KEYS } from '#shared/log-keys.ts'
import type { Workshop } from './apply.ts'

/** Removes the bundles that no function has, had last, or could go back to. */
export async function collectGarbage({ functions, bundles, log }: Workshop): Promise<void> {
  const used = new Set<string>()
  for (const { assignment, fallback, previousDigest, held } of functions.values()) {
    if (assignment !== undefined) used.add(assignment.artifact.digest)
    if (fallback !== undefined) used.add(fallback.assignment.artifact.digest)
    if (previousDigest !== undefined) used.add(previousDigest)
    for (const { handler } of held.values()) used.add(handler.record.digest)
  }
  try {
    const removed = await bundles.retain(used)
    if (removed.length > 0) log.info({ removed }, 'bundles removed')
  } catch (error) {
    log.warn({ [LOG_KEYS.err]: error }, 'bundles stay for now')
  }
}
