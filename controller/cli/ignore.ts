/** One line of a `.shoalignore`. */
interface Rule {
  readonly pattern: RegExp
  readonly include: boolean
  readonly foldersOnly: boolean
}

/** Always left out: rebuilt from the manifest, or of no use to a function. */
export const ALWAYS_IGNORED: readonly string[] = [
  'node_modules/',
  '.git/',
  '__pycache__/',
  '.DS_Store',
  '.shoalignore',
]

/**
 * Reads a `.shoalignore`, which is written as a `.gitignore`: one pattern per line, `#` comments, `!` takes back, `/` at the end
 * means folders only, `/` elsewhere ties to the top, `*` `?` `[a-z]` within a name, `**` across folders. The last line that
 * fits decides. Pure.
 *
 * @returns true for what is to be left out
 */
export function ignoreFilter(text: string): (path: string, folder: boolean) => boolean {
  const lines = [...ALWAYS_IGNORED, ...text.split(/\r?\n/)]
  const rules = lines.flatMap((line) => toRule(line) ?? [])
  return (path, folder) => {
    const last = rules.findLast((rule) => (folder || !rule.foldersOnly) && rule.pattern.test(path))
    return last !== undefined && !last.include
  }
}

function toRule(line: string): Rule | undefined {
  let rest = line.replace(/(?<!\\)\s+$/, '')
  if (rest === '' || rest.startsWith('#')) return undefined
  const include = rest.startsWith('!')
  if (include) rest = rest.slice(1)
  const foldersOnly = rest.endsWith('/')
  if (foldersOnly) rest = rest.slice(0, -1)
  const tied = rest.includes('/')
  if (rest.startsWith('/')) rest = rest.slice(1)
  if (rest === '') return undefined
  const prefix = tied ? '' : '(?:.*/)?'
  return { pattern: new RegExp(`^${prefix}${globSource(rest)}$`, 'su'), include, foldersOnly }
}

/** A glob as the source of a regular expression. */
function globSource(glob: string): string {
  let source = ''
  for (const [part] of glob.matchAll(/\*\*\/|\/\*\*$|\*+|\?|\[[^\]]+\]|\\.|./gsu)) {
    if (part === '**/') source += '(?:[^/]+/)*'
    else if (part === '/**') source += '/.+'
    else if (part.startsWith('*')) source += '[^/]*'
    else if (part === '?') source += '[^/]'
    else if (part.startsWith('[') && part.length > 2) source += characterClass(part)
    else source += RegExp.escape(part.startsWith('\\') ? part.slice(1) : part)
  }
  return source
}

function characterClass(part: string): string {
  const inner = part.slice(1, -1).replaceAll(/[\\[\]^]/g, String.raw`\$&`)
  const source = inner.startsWith('!') ? `[^/${inner.slice(1)}]` : `[${inner}]`
  try {
    return new RegExp(source, 'u').source
  } catch {
    // Not a range (`[z-a]`): taken as it is written.
    return RegExp.escape(part)
  }
}
