import path from 'node:path'

const PATH_BYTES_MAX = 1024
const SEGMENT_BYTES_MAX = 255

/**
 * The name of an archive's entry as a clean relative path (`a/b`; empty for the root itself), or what is wrong with it.
 * Pure; nothing that comes out of here leaves the folder it is joined to.
 */
export function entryPath(name: string): { readonly path: string } | { readonly problem: string } {
  const shown = JSON.stringify(name.slice(0, 200))
  if (name.includes('\0')) return { problem: `entry ${shown} has a zero byte in its name` }
  if (name.startsWith('/') || /^[A-Za-z]:[\\/]/.test(name)) {
    return { problem: `entry ${shown} is an absolute path: pack paths relative to the function` }
  }
  const segments = name.split('/').filter((segment) => segment !== '' && segment !== '.')
  if (segments.includes('..')) return { problem: `entry ${shown} points outside of the archive` }
  const clean = segments.join('/')
  if (Buffer.byteLength(clean) > PATH_BYTES_MAX) {
    return { problem: `entry ${shown} has a path of more than ${PATH_BYTES_MAX} bytes` }
  }
  if (segments.some((segment) => Buffer.byteLength(segment) > SEGMENT_BYTES_MAX)) {
    return { problem: `entry ${shown} has a name of more than ${SEGMENT_BYTES_MAX} bytes` }
  }
  return { path: clean }
}

/**
 * What is wrong with a symbolic link, if anything.
 *
 * A link may only climb first and then descend (`../../lib/x`), and not above the root. Together with the rule that no
 * entry lies behind a link, this holds links inside the tree whatever other links they pass through.
 */
export function linkProblem(at: string, target: string): string | undefined {
  const shown = `link ${JSON.stringify(at)} -> ${JSON.stringify(target.slice(0, 200))}`
  if (target === '' || target.includes('\0')) return `${shown} has no target`
  if (target.startsWith('/')) return `${shown} is absolute: it would point outside of the function`
  const segments = target.split('/').filter((segment) => segment !== '' && segment !== '.')
  const climbs = segments.findIndex((segment) => segment !== '..')
  const rest = climbs === -1 ? [] : segments.slice(climbs)
  if (rest.includes('..')) return `${shown} climbs after it descended: write it without the detour`
  const up = segments.length - rest.length
  const depth = path.posix.dirname(at) === '.' ? 0 : path.posix.dirname(at).split('/').length
  return up > depth ? `${shown} points outside of the function` : undefined
}
