/**
 * Every environment variable of Shoal's that is not in the agent's schema. All parts may run with one environment (`npm start`
 * hands its own on), so a part must tell "meant for another part" from "misspelt".
 */
export const OTHER_SETTINGS: readonly string[] = [
  // All parts
  'SHOAL_DATA',
  // Controller
  'SHOAL_CONTROLLER_DATA',
  'SHOAL_API_HOST',
  'SHOAL_API_PORT',
  'SHOAL_NATS_URL',
  'SHOAL_NATS_PUBLIC_URL',
  'SHOAL_COMPAT',
  'SHOAL_COMPAT_TINYFAAS_PORT',
  'SHOAL_CA_BUNDLE',
  'SHOAL_HTTP_PROXY',
  'SHOAL_HTTPS_PROXY',
  'SHOAL_NO_PROXY',
  'SHOAL_COMMAND_EXPIRES_MS',
  // Deploy
  'SHOAL_NATS_HOST',
  'SHOAL_NATS_PORT',
  'SHOAL_SAMPLES',
  // CLI
  'SHOAL_API_URL',
  'SHOAL_API_TOKEN',
]

/** Names that Shoal's programs give each other: nobody sets them by hand, so they are never what was meant. */
export const INTERNAL_NAMES: readonly string[] = [
  // Runners, inside handlers
  'SHOAL_SOCKET',
  'SHOAL_HANDLER',
  'SHOAL_STARTS_MAX',
  'SHOAL_DEADLINE_MS',
  'SHOAL_NICE',
  'SHOAL_ULIMIT_DATA_KIB',
  'SHOAL_ULIMIT_FILES',
  // Tests
  'SHOAL_TEST_IMAGES',
  'SHOAL_TEST_RUN',
]

/**
 * The name in `ours` that `name` was probably meant to be: at most two letters wrong, missing, too many or exchanged; or each of its
 * words is, but for one letter, a word of it (`SHOAL_PROT` for `SHOAL_HTTP_PORT`).
 *
 * @returns `undefined` when `name` is one of `ours`, known to another part, or unlike any of ours
 */
export function misspelt(name: string, ours: readonly string[]): string | undefined {
  if ([ours, OTHER_SETTINGS, INTERNAL_NAMES].some((known) => known.includes(name))) return undefined
  const distances = ours.map((own) => ({ own, distance: editDistance(name, own) }))
  const [nearest] = distances.toSorted((a, b) => a.distance - b.distance)
  if (nearest !== undefined && nearest.distance <= 2) return nearest.own
  return ours.find((own) => wordsOf(name).every((word) => wordsOf(own).some(isNear(word))))
}

function wordsOf(name: string): readonly string[] {
  return name.split('_').slice(1)
}

function isNear(word: string): (other: string) => boolean {
  return (other) => word.length > 2 && editDistance(word, other) <= 1
}

/** Optimal string alignment distance: insert, delete, replace, exchange of neighbours cost 1 each. */
function editDistance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, column) => column)]
  const at = (row: number, column: number) => rows[row]?.[column] ?? Infinity
  for (let i = 1; i <= a.length; i += 1) {
    rows[i] = [i]
    for (let j = 1; j <= b.length; j += 1) {
      const replace = at(i - 1, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1)
      let best = Math.min(at(i - 1, j) + 1, at(i, j - 1) + 1, replace)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        best = Math.min(best, at(i - 2, j - 2) + 1)
      }
      rows[i]?.push(best)
    }
  }
  return at(a.length, b.length)
}
