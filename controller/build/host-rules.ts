/**
 * What npm and pip may be asked for where nothing holds what they run: packages of the index, by name and version. Anything else
 * can run code of the upload (a build backend, git and its settings) or read files of this host.
 */
import { Fault } from '#shared/fault.ts'

/** A version, a range or a tag; or another package's name with one of these. */
const RANGE = String.raw`[\w\s.^~<>=|*+-]*`
const NPM_SPEC = new RegExp(`^(?:npm:(?:@[\\w.-]+/)?[\\w.-]+(?:@${RANGE})?|${RANGE})$`)
/** npm takes these for files. */
const FILE = /^\.|\.(?:tgz|tar\.gz|tar)$/i
const NPM_GROUPS = [
  'dependencies',
  'devDependencies',
  'optionalDependencies',
  'peerDependencies',
  'overrides',
]

/** Refuses what is no package of the registry. @throws Fault `BUILD_FAILED`, naming the entry */
export function checkPackageJson(name: string, text: string): void {
  const content = parse(name, text)
  if ('workspaces' in content) throw refused(name, 'workspaces')
  for (const group of NPM_GROUPS) checkSpecs(name, content[group])
}

/** Overrides are nested. */
function checkSpecs(file: string, group: unknown): void {
  for (const [name, spec] of Object.entries(record(group))) {
    if (typeof spec !== 'string') checkSpecs(file, spec)
    // An override may name a dependency whose specifier it takes.
    else if (!isNpmSpec(spec.replace(/^\$/, ''))) throw refused(file, `${name}: ${spec}`)
  }
}

function isNpmSpec(spec: string): boolean {
  return NPM_SPEC.test(spec) && !FILE.test(spec.trim())
}

/** The same for a lock file of npm, in any of its versions. @throws Fault `BUILD_FAILED`, naming the entry */
export function checkPackageLock(name: string, text: string): void {
  const { packages, dependencies } = parse(name, text)
  for (const [at, entry] of Object.entries(record(packages))) {
    const foreign = at !== '' && !at.startsWith('node_modules/')
    if (foreign || record(entry)['link'] === true || !isRemote(entry)) throw refused(name, at)
  }
  checkLocked(name, dependencies)
}

/** Entries of a lock file of version 1. */
function checkLocked(file: string, group: unknown): void {
  for (const [name, entry] of Object.entries(record(group))) {
    const { version = '', dependencies } = record(entry)
    if (typeof version !== 'string' || !isNpmSpec(version) || !isRemote(entry))
      throw refused(file, name)
    checkLocked(file, dependencies)
  }
}

function isRemote(entry: unknown): boolean {
  const { resolved } = record(entry)
  return resolved === undefined || (typeof resolved === 'string' && /^https?:/.test(resolved))
}

const VERSIONS = String.raw`(?:===?|~=|!=|<=?|>=?) ?[\w.*+!-]+`
/** `name[extras]specifier`, then perhaps a marker, then perhaps hashes: PEP 508 without URLs, pip's format without options. */
const REQUIREMENT = new RegExp(
  [
    String.raw`^[A-Za-z\d](?:[\w.-]*[A-Za-z\d])?(?:\[[\w.,-]*\])?`,
    ` ?(?:${VERSIONS}(?: ?, ?${VERSIONS})*)?`,
    String.raw`(?: ?;[\w '"<>=!~.()]*)?(?: --hash=\w+:[\da-f]+)*$`,
  ].join(''),
)
/** Where Python's `splitlines` ends a line. */
// oxlint-disable-next-line no-control-regex -- these are the characters that are meant
const LINE_END = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/

/**
 * The requirements of a requirements.txt, one line each, without comments: these are what pip gets, not the file, which it may
 * read in another encoding.
 *
 * @throws Fault `BUILD_FAILED`, naming the requirement
 */
export function plainRequirements(name: string, text: string): string {
  const requirements: string[] = []
  let begun = ''
  for (const line of [...text.replace(/^\uFEFF/, '').split(LINE_END), '']) {
    const words = `${begun} ${line.replace(/(?:^|\s)#.*$/, '')}`.replace(/\s+/g, ' ').trim()
    begun = words.endsWith('\\') ? words.slice(0, -1) : ''
    if (begun !== '' || words === '' || words === '\\') continue
    if (!REQUIREMENT.test(words)) throw refused(name, words)
    requirements.push(`${words}\n`)
  }
  return requirements.join('')
}

const SHOWN_CHARS_MAX = 200

function refused(file: string, what: string): Fault {
  const shown = what.slice(0, SHOWN_CHARS_MAX)
  const message = `${file} asks for "${shown}": without Docker only packages of the index are installed, by name and version; use a controller with Docker`
  return new Fault('BUILD_FAILED', message, { lines: [] })
}

function parse(name: string, text: string): Readonly<Record<string, unknown>> {
  try {
    return record(JSON.parse(text.replace(/^\uFEFF/, '')))
  } catch (cause) {
    throw new Fault('BUNDLE_INVALID', `${name} is not JSON`, {}, { cause })
  }
}

function record(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? { ...value } : {}
}
