import { LIMITS } from '#shared/limits.ts'

/** The longest name of `names` that the path (without leading `/`) starts with, and what follows it; see `Invoker.match`. */
export function matchName(
  path: string,
  names: { has(name: string): boolean },
): { readonly fn: string; readonly rest: string } | undefined {
  let slash = -1
  for (let segment = 0; segment < LIMITS.nameSegmentsMax; segment += 1) {
    slash = path.indexOf('/', slash + 1)
    if (slash === -1) break
  }
  // The longest possible name is the whole path, or ends before its fifth segment.
  let end = slash === -1 ? path.length : slash
  while (end > 0) {
    const fn = path.slice(0, end)
    if (names.has(fn)) return { fn, rest: path.slice(end) }
    end = path.lastIndexOf('/', end - 1)
  }
  return undefined
}
