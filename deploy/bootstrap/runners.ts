import { createHash } from 'node:crypto'
import { access, mkdir, readFile, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Images } from '#shared/schemas/images.ts'
import type { Runtime } from '#shared/schemas/names.ts'
import { findProgram, runCommand } from '../command.ts'
import { ensureGo, programFolder, type ProgramsOptions } from './programs.ts'
import type { Step } from './steps.ts'

/** The process engine's part of `images.json`. */
export type Runners = NonNullable<Images['process']>

const RUNTIMES = join(import.meta.dirname, '../../runtimes')
const GO_BUILD_TIMEOUT_MS = 300_000

/** What the process engine can run without anything being made. */
export async function presentRunners(data: string): Promise<Runners> {
  const runners: Runners = {
    nodejs: { command: [process.execPath, join(RUNTIMES, 'nodejs/main.ts')] },
  }
  const python = findProgram('python3')
  if (python !== undefined) {
    runners.python3 = { command: [python, join(RUNTIMES, 'python3/main.py')] }
  }
  const binary = await binaryRunner(data)
  if (await exists(binary)) runners.binary = { command: [binary] }
  return runners
}

/** Makes what the process engine needs and is missing; what is there is put into `runners`. */
export function runnerSteps(options: ProgramsOptions, runners: Runners): readonly Step[] {
  const { apt, data } = options
  const present = (runtime: Runtime) => async () => {
    const runner = (await presentRunners(data))[runtime]
    if (runner === undefined) return undefined
    runners[runtime] = runner
    return runner.command[0]
  }
  const done = async (runtime: Runtime, what: string) => {
    if ((await present(runtime)()) === undefined) throw new Error(`${what}, and still not there`)
    return what
  }
  return [
    {
      name: 'runner nodejs',
      present: present('nodejs'),
      install: () => done('nodejs', 'nothing to do'),
      hint: 'By hand: npm ci',
    },
    {
      name: 'runner python3',
      present: present('python3'),
      install: async (signal) => {
        if (!apt.installs) throw new Error('Python 3 is not installed, and installing needs root')
        await apt.install(['python3'], signal)
        return done('python3', 'python3 installed')
      },
      hint: 'By hand: sudo apt-get install python3. Without it, Python functions do not run here',
    },
    {
      name: 'runner binary',
      present: present('binary'),
      install: async (signal) => {
        await buildBinaryRunner(options, signal)
        return done('binary', 'built')
      },
      hint: 'By hand: sudo apt-get install golang-go. Without Go, binary functions do not run here',
    },
  ]
}

/** Built once for each version of its source. */
async function binaryRunner(data: string): Promise<string> {
  const hash = createHash('sha256')
  for (const file of await goFiles()) {
    hash.update(`${file}\n`)
    hash.update(await readFile(join(RUNTIMES, 'binary', file)))
  }
  return join(programFolder(data), `shoal-runner-binary-${hash.digest('hex').slice(0, 12)}`)
}

async function goFiles(): Promise<readonly string[]> {
  const files = await readdir(join(RUNTIMES, 'binary'))
  return files.filter((file) => /\.(?:go|s)$|^go\.mod$/.test(file)).toSorted()
}

async function buildBinaryRunner(options: ProgramsOptions, signal: AbortSignal): Promise<void> {
  const { program, env } = await ensureGo(options, signal)
  const folder = programFolder(options.data)
  await mkdir(folder, { recursive: true })
  for (const file of await readdir(folder)) {
    if (file.startsWith('shoal-runner-binary-')) await rm(join(folder, file), { force: true })
  }
  const target = await binaryRunner(options.data)
  const cache = join(options.data, 'cache/go-build')
  await runCommand(
    program,
    ['build', '-trimpath', '-ldflags=-s -w', '-o', `${target}.new`, '.'],
    {
      cwd: join(RUNTIMES, 'binary'),
      // Standard library only: it builds without a network.
      env: {
        ...env,
        CGO_ENABLED: '0',
        GOTOOLCHAIN: 'local',
        GOFLAGS: '-mod=mod',
        GOPROXY: 'off',
        GOCACHE: cache,
      },
      timeoutMs: GO_BUILD_TIMEOUT_MS,
    },
    signal,
  )
  await rename(`${target}.new`, target)
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  )
}
