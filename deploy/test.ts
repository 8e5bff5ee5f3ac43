import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { globSync, readFileSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join, relative, resolve } from 'node:path'
import { bootstrap, type Bootstrapped } from './bootstrap/index.ts'
import { runCommand } from './command.ts'
import type { DeployConfig } from './config.ts'
import { formatSeconds, type Output } from './output.ts'
import { StarvationWatch } from './starvation.ts'

const ROOT = join(import.meta.dirname, '..')
/** Of one test; the slowest (redeploy under load, recovery after kills) need minutes on two busy cores. */
const TEST_TIMEOUT_MS = 300_000
/** Test files. They wait more than they compute: two cores are half idle with two, and more than three make timeouts say less. */
const TESTS_AT_ONCE = 3
/** The test runner goes by the alphabet: the check for leaks comes last by its name. */
const LEAKS = 'test/zz-leaks.test.ts'
const GLOBS = ['test/{arch,e2e,integration,unit}/**/*.test.ts', LEAKS]
const CHECKS: readonly { readonly name: string; readonly args: readonly [string, ...string[]] }[] =
  [
    { name: 'format', args: ['oxfmt', '--check', '.'] },
    { name: 'types', args: ['tsc', '-p', '.'] },
    { name: 'lint', args: ['oxlint', '--type-aware', '.'] },
    { name: 'dead code', args: ['knip'] },
  ]

export interface TestOptions {
  readonly config: DeployConfig
  readonly env: NodeJS.ProcessEnv
  readonly out: Output
  /** Files or globs to run instead of all tests. */
  readonly args: readonly string[]
}

/** `npm test`: set-up, checks, all tests in one run. Resolves to the exit code. @throws BootstrapFailure */
export async function runTests(options: TestOptions, signal: AbortSignal): Promise<number> {
  const { config, out, args } = options
  process.umask(UMASK)
  const ready = await bootstrap({ config, purpose: 'test', out }, signal)
  try {
    const checksPassed = args.length > 0 || (await runChecks(out, signal))
    const files = globSync(args.length > 0 ? [...args] : GLOBS, { cwd: ROOT }).toSorted()
    if (files.length === 0) throw new Error(`no test files match ${args.join(' ')}`)
    const withoutDocker = ready.engine === 'docker' ? [] : files.filter((file) => needsDocker(file))
    const run = files.filter((file) => !withoutDocker.includes(file))
    // Before the tests: what ends the output are the test runner's counts.
    if (withoutDocker.length > 0) {
      out.line(
        `NOT RUN, because there is no Docker here: ${withoutDocker.length} of ${files.length} files: ${withoutDocker.join(' ')}`,
      )
    }
    if (!checksPassed) out.line('FAILED: a check, see above; the tests are run all the same')
    const testsPassed = await runTestFiles(options, ready, run, signal)
    return checksPassed && testsPassed ? 0 : 1
  } finally {
    await ready.dockerd?.stop()
  }
}

async function runChecks(out: Output, signal: AbortSignal): Promise<boolean> {
  const bin = join(ROOT, 'node_modules/.bin')
  const results = await Promise.all(
    CHECKS.map(async ({ name, args: [program, ...args] }) => {
      const startedAtMs = performance.now()
      const took = () => formatSeconds(performance.now() - startedAtMs)
      try {
        // Programs of node_modules say `#!/usr/bin/env node`: theirs is the pinned one.
        const path = `${bin}${delimiter}${process.env['PATH'] ?? ''}`
        await runCommand(join(bin, program), args, { cwd: ROOT, env: { PATH: path } }, signal)
        out.line(`[ ok ] ${name} (${took()})`)
        return true
      } catch (error) {
        signal.throwIfAborted()
        out.line(
          `[fail] ${name} (${took()})\n${error instanceof Error ? error.message : String(error)}`,
        )
        return false
      }
    }),
  )
  return results.every(Boolean)
}

/**
 * All of `files`, then, when the machine was short of time meanwhile, those that failed once more: their time limits said nothing
 * about what they test. @returns whether all have passed at last
 */
async function runTestFiles(
  { config, env, out }: TestOptions,
  ready: Bootstrapped,
  files: readonly string[],
  signal: AbortSignal,
): Promise<boolean> {
  // All that tests leave behind is found by this folder: their files are in it, their processes have it in TMPDIR.
  const temp = await mkdtemp(join(tmpdir(), 'shoal-t-'))
  const turns = await mkdtemp(join(tmpdir(), 'shoal-turns-'))
  try {
    const given = testEnv({ config, env, ready, temp, turns })
    const failedTo = join(turns, 'failed')
    using watch = new StarvationWatch()
    if (await runNode({ files, atOnce: TESTS_AT_ONCE, env: given, failedTo }, signal)) return true
    const failed = await readFailed(failedTo)
    if (!watch.starved || failed.length === 0 || signal.aborted) return false
    out.line(
      `\nFAILED, but ${watch.text()}. Once more, one at a time, and the check for leaks: ${failed.join(' ')}\n`,
    )
    const again = { files: [...new Set([...failed, LEAKS])], atOnce: 1, env: given, failedTo }
    return await runNode(again, signal)
  } finally {
    await rm(temp, { recursive: true, force: true })
    await rm(turns, { recursive: true, force: true })
  }
}

async function readFailed(list: string): Promise<readonly string[]> {
  // None: the test runner has not come so far.
  const text = await readFile(list, 'utf8').catch(() => '')
  const lines = text.split('\n').filter((line) => line !== '')
  return [...new Set(lines)].map((file) => relative(ROOT, file)).toSorted()
}

interface NodeRun {
  readonly files: readonly string[]
  readonly atOnce: number
  readonly env: NodeJS.ProcessEnv
  /** Where the paths of files that fail are written. */
  readonly failedTo: string
}

/** Node's test runner. Resolves to whether all passed. */
async function runNode(
  { files, atOnce, env, failedTo }: NodeRun,
  signal: AbortSignal,
): Promise<boolean> {
  const child = spawn(
    process.execPath,
    [
      '--test',
      `--test-concurrency=${atOnce}`,
      '--import=./test/lib/whole-report.ts',
      '--import=./test/lib/turn.ts',
      // A failed test may leave a handle open; that must not hold up the rest for ever.
      '--test-force-exit',
      `--test-timeout=${TEST_TIMEOUT_MS}`,
      '--test-reporter=./deploy/failed-files.ts',
      `--test-reporter-destination=${failedTo}`,
      '--test-reporter=spec',
      '--test-reporter-destination=stdout',
      ...files,
    ],
    { cwd: ROOT, stdio: 'inherit', env },
  )
  const stop = () => child.kill('SIGTERM')
  signal.addEventListener('abort', stop)
  const code = await new Promise<number>((done, fail) => {
    child.once('error', fail)
    child.once('exit', (exitCode) => done(exitCode ?? 1))
  })
  signal.removeEventListener('abort', stop)
  return code === 0 && !signal.aborted
}

const NOT_FOR_TESTS = /^SHOAL_|^(http|coap|grpc)_port$|^NODE_ENV$/i
/** What tests call is on this machine: no proxy's business. */
const LOCAL_HOSTS = ['127.0.0.1', 'localhost', '::1']
/** Handlers run as another user, and read what tests have written. */
const UMASK = 0o022

/** Settings of the person at the keyboard must not decide what tests see. */
function testEnv(options: {
  readonly config: DeployConfig
  readonly env: NodeJS.ProcessEnv
  readonly ready: Bootstrapped
  readonly temp: string
  readonly turns: string
}): NodeJS.ProcessEnv {
  const { config, env, ready, temp, turns } = options
  const clean = Object.fromEntries(
    Object.entries(env).filter(([name]) => !NOT_FOR_TESTS.test(name)),
  )
  const noProxy = [env['no_proxy'] ?? env['NO_PROXY'] ?? [], LOCAL_HOSTS].flat().join(',')
  return {
    ...clean,
    PATH: [join(config.data, 'bin'), env['PATH'] ?? '', '/usr/sbin', '/sbin'].join(delimiter),
    TMPDIR: temp,
    no_proxy: noProxy,
    NO_PROXY: noProxy,
    DOCKER_HOST: `unix://${config.dockerSocket}`,
    SHOAL_DATA: join(temp, 'data'),
    SHOAL_TEST_IMAGES: ready.imagesFile,
    SHOAL_TEST_TURNS: turns,
    SHOAL_TEST_RUN: randomBytes(4).toString('hex'),
    ...(config.ca === undefined ? {} : { SHOAL_CA_BUNDLE: config.ca.file }),
  }
}

/** In a source: it uses Docker through the agent, or through a program that it starts. */
const DOCKER_INSIDE = /\bDockerEngine\b|bench\/soak\.ts/

/** True for a test that reaches `#test/docker.ts`, dockerode or the agent's engine through its imports inside `test/`. */
function needsDocker(file: string, seen = new Set<string>()): boolean {
  if (seen.has(file)) return false
  seen.add(file)
  const source = readFileSync(join(ROOT, file), 'utf8')
  if (DOCKER_INSIDE.test(source)) return true
  const imports = [...source.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map(
    ([, to = '']) => to,
  )
  return imports.some((to) => {
    if (to === 'dockerode' || to === '#test/docker.ts') return true
    const inside = to.startsWith('#test/')
      ? to.replace('#test/', 'test/lib/')
      : relative(ROOT, resolve(ROOT, dirname(file), to))
    const local = to.startsWith('.') || to.startsWith('#test/')
    return local && inside.startsWith('test/') && needsDocker(inside, seen)
  })
}
