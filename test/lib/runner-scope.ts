import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { cp, mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Runtime } from '#shared/schemas/names.ts'
import { eventually } from './eventually.ts'
import { testImages } from './images.ts'
import { processesWhere } from './process-facts.ts'
import { reapAtExit } from './reaper.ts'
import { RunnerListener, type InitInput, type RunnerSession } from './runner-client.ts'
import { tempFolder, type TempFolder } from './temp.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** Where the conformance suite's functions are. */
export const RUNNER_FIXTURES = join(ROOT, 'test/fixtures/runner')

let builtRunner: Promise<string> | undefined

/** The command line of a runtime's runner, from this checkout. */
export async function runnerCommand(runtime: Runtime): Promise<readonly string[]> {
  if (runtime === 'nodejs') {
    return [process.execPath, join(ROOT, 'runtimes/nodejs/main.ts')]
  }
  if (runtime === 'python3') return ['python3', '-B', join(ROOT, 'runtimes/python3/main.py')]
  return [await (builtRunner ??= binaryRunner())]
}

/** Path of a program on PATH. */
export function onPath(name: string): string | undefined {
  return (process.env['PATH'] ?? '')
    .split(':')
    .map((folder) => join(folder, name))
    .find((path) => existsSync(path))
}

/** Built by the Go on PATH, else the one that the bootstrap has built. */
async function binaryRunner(): Promise<string> {
  const go = onPath('go')
  if (go === undefined) {
    const command = testImages().process?.binary?.command[0]
    if (command === undefined) throw new Error('no Go on PATH, and no binary runner in images.json')
    return command
  }
  const folder = await mkdtemp(join(tmpdir(), 'shoal-test-go-'))
  process.once('exit', () => execFileSync('rm', ['-rf', folder]))
  const target = join(folder, 'runner')
  execFileSync(go, ['build', '-o', target, '.'], {
    cwd: join(ROOT, 'runtimes/binary'),
    env: { ...process.env, CGO_ENABLED: '0', GOFLAGS: '-mod=mod', GOPROXY: 'off' },
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  return target
}

export interface RunnerScopeOptions {
  readonly runtime: Runtime
  /** A folder of the fixtures, copied; or the function's files by name. */
  readonly fn: string | Readonly<Record<string, string>>
  /** Put before the runner's command line, e.g. a limiter. */
  readonly before?: readonly string[]
  /** More for the interpreter's command line. */
  readonly flags?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
}

/** One runner as a process, and a listener of its own to speak to it. Disposing ends it by force. */
export class RunnerScope implements AsyncDisposable {
  readonly listener: RunnerListener
  readonly child: ChildProcess
  readonly exited: Promise<number | null>
  /** The function's folder. */
  readonly dir: string
  readonly #temp: TempFolder

  private constructor(temp: TempFolder, listener: RunnerListener, child: ChildProcess) {
    this.#temp = temp
    this.listener = listener
    this.child = child
    this.dir = temp.join('fn')
    this.exited = new Promise((resolve) => {
      child.once('exit', (code) => resolve(code))
    })
  }

  static async start(options: RunnerScopeOptions): Promise<RunnerScope> {
    const temp = await tempFolder()
    await placeFunction(temp.join('fn'), options.fn)
    const listener = await RunnerListener.listen(temp.join('s'))
    const [program = '', ...rest] = await runnerCommand(options.runtime)
    const command = [...(options.before ?? []), program, ...(options.flags ?? []), ...rest]
    const child = spawn(command[0] ?? '', command.slice(1), {
      env: {
        ...process.env,
        ...options.env,
        SHOAL_SOCKET: temp.join('s'),
        SHOAL_HANDLER: 'test-handler',
      },
      // What a runner says of a hostile agent is no output of the test.
      stdio: 'ignore',
    })
    reapAtExit(child)
    return new RunnerScope(temp, listener, child)
  }

  /** The next connection, initialised. */
  async ready(init: Partial<InitInput> = {}): Promise<RunnerSession> {
    const session = await this.listener.session()
    const answer = await session.init({ dir: this.dir, ...init })
    if (answer['ok'] !== true) throw new Error(`not ready: ${String(answer['error'])}`)
    return session
  }

  /** The next connection of a runner that has its function already. */
  async again(): Promise<RunnerSession> {
    const session = await this.listener.session()
    await session.hello()
    session.welcome()
    await session.readyMessage()
    return session
  }

  /** Resident memory of the runner's process, in MiB. */
  async residentMiB(): Promise<number> {
    const status = await readFile(`/proc/${this.child.pid}/status`, 'utf8')
    return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.listener[Symbol.asyncDispose]()
    try {
      // Programs of calls end with the connection, if the runner is given the time.
      await eventually(async () => !(await this.#hasProgramOfACall()))
    } finally {
      this.child.kill('SIGKILL')
      await this.exited
      await this.#temp[Symbol.asyncDispose]()
    }
  }

  async #hasProgramOfACall(): Promise<boolean> {
    const ofThisRunner = `SHOAL_CALL=test-handler.${this.child.pid}.`
    const programs = await processesWhere(
      (environment) =>
        environment.some((entry) => entry.startsWith(ofThisRunner)) &&
        // Those that stay alive between calls have no path.
        environment.some((entry) => entry.startsWith('SHOAL_PATH=')),
    )
    return programs.length > 0
  }
}

async function placeFunction(
  folder: string,
  fn: string | Readonly<Record<string, string>>,
): Promise<void> {
  if (typeof fn === 'string') {
    await cp(join(RUNNER_FIXTURES, fn), folder, { recursive: true })
    return
  }
  for (const [name, text] of Object.entries(fn)) {
    const path = join(folder, name)
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, text, { mode: 0o755 })
  }
  await mkdir(folder, { recursive: true })
}
