// The only file that runs before anything is installed: plain JavaScript for Node 20, Node's own modules only.
//
//   node deploy/start.mjs start | test | bootstrap | stop
//
// Installs the npm packages of the lock file when they are not there, then hands over to deploy/main.ts on the Node that
// came with them. Signals are passed on, and so is the exit code.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { constants } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..')
const NODE = join(ROOT, 'node_modules/.bin/node')
const VERBS = ['start', 'test', 'bootstrap', 'stop']
const PARENT_CHECK_MS = 1000

const verb = process.argv[2] ?? ''
checkHost()
installPackages()
handOver()

function checkHost() {
  if (!VERBS.includes(verb)) refuse(`usage: node deploy/start.mjs ${VERBS.join(' | ')}`)
  if (Number(process.versions.node.split('.')[0]) < 20) {
    refuse(
      `Node 20 or newer is needed to begin with; this is ${process.version}. Debian 13 and Ubuntu 25.10 have it` +
        ' (apt install nodejs npm), others find it at https://nodejs.org/en/download',
    )
  }
  if (process.platform !== 'linux' || !['x64', 'arm64'].includes(process.arch)) {
    refuse(
      `Shoal runs on Linux on x86_64 and arm64; this is ${process.platform} on ${process.arch}`,
    )
  }
}

/** @returns {never} */
function refuse(/** @type {string} */ message) {
  process.stderr.write(`${message}\n`)
  process.exit(1)
}

function installPackages() {
  const startedAt = Date.now()
  const say = (/** @type {string} */ word, /** @type {string} */ detail) =>
    process.stdout.write(
      `[${word}] npm packages (${((Date.now() - startedAt) / 1000).toFixed(1)} s) ${detail}\n`,
    )
  const missing = whatIsMissing()
  if (missing === undefined) {
    say(' ok ', 'as in package-lock.json')
    return
  }
  process.stdout.write(`[ .. ] npm packages: npm ci (${missing})\n`)
  // Twice: the second time without what a broken installation may have left behind.
  for (const attempt of [1, 2]) {
    if (attempt === 2) rmSync(join(ROOT, 'node_modules'), { recursive: true, force: true })
    npmCi()
    if (whatIsMissing() === undefined) {
      say('done', 'installed by package-lock.json')
      return
    }
  }
  say('fail', whatIsMissing() ?? '')
  refuse('The npm packages could not be installed. Try it by hand to see why: npm ci')
}

/** What differs between package-lock.json and node_modules, or undefined. */
function whatIsMissing() {
  const wanted = packagesOf(join(ROOT, 'package-lock.json'))
  const present = packagesOf(join(ROOT, 'node_modules/.package-lock.json'))
  if (wanted === undefined)
    refuse('package-lock.json is missing or broken: take it from the repository again')
  if (present === undefined) return 'not installed yet'
  for (const [path, entry] of Object.entries(wanted)) {
    if (path === '' || (!(path in present) && !isForThisMachine(entry))) continue
    if (present[path]?.version !== entry.version) return `${path} ${entry.version} is not installed`
    if (present[path].integrity !== entry.integrity)
      return `${path} is not the one of the lock file`
    if (!existsSync(join(ROOT, path, 'package.json'))) return `${path} is damaged`
  }
  const wantedNode = wanted[`node_modules/node-linux-${process.arch}`]?.version
  const version = spawnSync(NODE, ['--version'], { encoding: 'utf8' }).stdout?.trim()
  return version === `v${wantedNode}` ? undefined : `Node ${wantedNode} is not installed`
}

/** An optional package may be missing, unless it is the one with the program for this platform. */
function isForThisMachine(
  /** @type {{ optional?: boolean, os?: string[], cpu?: string[], libc?: string[] }} */ entry,
) {
  if (!entry.optional) return true
  const fits = entry.os?.includes('linux') && entry.cpu?.includes(process.arch)
  return fits === true && !entry.libc?.includes('musl')
}

/** @returns {Record<string, { version?: string, integrity?: string, optional?: boolean }> | undefined} */
function packagesOf(/** @type {string} */ file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8')).packages
  } catch {
    return undefined
  }
}

function npmCi() {
  // Whatever NODE_ENV and npm's settings leave out: the checks and tests are made with the rest.
  const args = ['ci', '--include=dev', '--include=optional', '--no-progress', '--loglevel=error']
  const npm = process.env.npm_execpath
  // Under npm, the same npm; its own Node may be the one in node_modules, which is about to be replaced: the kernel keeps
  // a running program's file.
  const [command, all] = npm?.endsWith('.js') ? [process.execPath, [npm, ...args]] : ['npm', args]
  const { error } = spawnSync(command, all, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] })
  if (error) refuse(`npm cannot be started (${error.message}). On Debian: apt install npm`)
}

function handOver() {
  const child = spawn(NODE, [join(ROOT, 'deploy/main.ts'), verb, ...process.argv.slice(3)], {
    stdio: 'inherit',
    // Every part starts in half the time when its compiled modules are kept; npm ci throws them away with the rest.
    env: { NODE_COMPILE_CACHE: join(ROOT, 'node_modules/.cache/node-compile'), ...process.env },
  })
  child.on('error', (error) => refuse(`${NODE}: ${error.message}`))
  child.on('exit', (code, signal) => {
    process.exit(code ?? 128 + (signal ? constants.signals[signal] : 0))
  })
  for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) {
    process.on(signal, () => child.kill(signal))
  }
  // npm that is killed by force, or by a signal that it does not pass on, tells nobody: then what it started ends too. The
  // scripts of package.json `exec`: a shell in between would keep signals from us and npm's end out of sight.
  const parent = process.ppid
  if (process.env.npm_lifecycle_event !== undefined) {
    setInterval(() => {
      if (process.ppid !== parent) child.kill('SIGTERM')
    }, PARENT_CHECK_MS).unref()
  }
}
