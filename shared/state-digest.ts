import { createHash } from 'node:crypto'
import type { Assignment } from './schemas/command.ts'

/** JSON with the keys of every object sorted: equal values give equal text. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  )
}

/** `sha256:<hex>` over what a node shall run; node and controller compare theirs, whatever the order of the list. */
export function stateDigest(
  functions: readonly Pick<Assignment, 'fn' | 'release' | 'settings'>[],
): string {
  const list = functions
    .map(({ fn, release, settings }) => [fn, release, settings] as const)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
  return `sha256:${createHash('sha256').update(canonicalJson(list)).digest('hex')}`
}
