import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { constants } from 'node:fs'
import { access, open, rm, type FileHandle } from 'node:fs/promises'
import { release } from 'node:os'
import { delimiter, isAbsolute, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Fault } from '#shared/fault.ts'
import { RUNTIMES, type Runtime } from '#shared/schemas/names.ts'
import { timeLimit } from '#shared/time-limit.ts'
import type {
  Engine,
  HandlerExit,
  HandlerLimits,
  HandlerSpec,
  ObservedHandler,
  SpareSpec,
} from '../engine.ts'
import type { ImagesSource } from '../images-file.ts'
import { launchCommand, launchEnvironment, limitProcesses } from './launch.ts'
import { boundOutput, readEnd } from './output.ts'
import { ProcessWatch } from './process-watch.ts'
import {
  identify,
  isAlive,
  isStopped,
  mayRun,
  pidsWithEnvironment,
  sendSignal,
  type ProcessIdentity,
} from './proc.ts'
import { readExitCode, readState, readStates, removeState, writeState } from './state-file.ts'
import type { ProcessState } from './state-file.ts'

/** Logged once by an agent that starts with this engine. */
export const PROCESS_ENGINE_WARNING =
  'engine "process": functions run as plain processes of this user, with some limits and NO isolation; for development only, use Docker for anything else'

/** SIGKILL works at once, except on a process that waits for a disk. */
const KILL_WAIT_MS = 5_000

export interface ProcessEngineOptions {
  /** The folder that holds all handlers' folders (`<folder>/<handler id>`): what runs is found there again. */
  readonly folder: string
  /** Only handlers with this installation id are seen and touched. */
  readonly installation: string
  readonly images: ImagesSource
  /** Where handlers' environment is taken from: `PATH` and `LANG`, nothing else. */
  readonly env: Readonly<Record<string, string | undefined>>
}

/**
 * Handlers as detached child processes, each its own session. They outlive the agent: pid, start time and boot are kept in
 * `process.json` in the handler's folder, so that the next agent finds them and never signals a pid that was used again.
 *
 * Enforced and not enforced limits: see `launchEnvironment`. Output is cut to its end while somebody watches.
 */
export class ProcessEngine implements Engine {
  readonly kind = 'process'
  readonly #options: ProcessEngineOptions
  readonly #watches = new Set<ProcessWatch>()

  constructor(options: ProcessEngineOptions) {
    this.#options = options
  }

  codeDirInside({ folder }: Pick<SpareSpec, 'folder'>): string {
    return join(folder, 'fn')
  }

  async identity(runtime: Runtime): Promise<string> {
    return (await this.#command(runtime)).join(' ')
  }

  async version(): Promise<string> {
    return `Linux ${release()}`
  }

  async runtimes(): Promise<readonly Runtime[]> {
    const found: Runtime[] = []
    for (const runtime of RUNTIMES) {
      const [program] = await this.#command(runtime).catch(() => [])
      if (program !== undefined && (await this.#isProgram(program))) found.push(runtime)
    }
    return found
  }

  async list(): Promise<readonly ObservedHandler[]> {
    const states = readStates(this.#options.folder, this.#options.installation)
    return states
      .values()
      .map((state) => this.#observe(state))
      .toArray()
  }

  async start(spec: HandlerSpec, signal: AbortSignal): Promise<void> {
    const { fn, release: version, specDigest } = spec
    await this.#start(spec, { fn, release: version, specDigest }, signal)
  }

  async startSpare(spec: SpareSpec, signal: AbortSignal): Promise<void> {
    await this.#start(spec, {}, signal)
  }

  async update(id: string, limits: HandlerLimits, signal: AbortSignal): Promise<void> {
    this.#running(id)
    try {
      await limitProcesses(pidsWithEnvironment(`SHOAL_HANDLER=${id}`), limits, signal)
    } catch (cause) {
      signal.throwIfAborted()
      // Ended in the meantime?
      this.#running(id)
      const reason = cause instanceof Error ? cause.message : String(cause)
      const message = `cannot change the limits of handler ${id}: ${reason}`
      throw new Fault('HANDLER_START', message, { handler: id }, { cause })
    }
  }

  async pause(id: string, signal: AbortSignal): Promise<void> {
    this.#signalAll(id, 'SIGSTOP')
    // What they fork before it reaches them would go on.
    const held = (): boolean => {
      const pids = pidsWithEnvironment(`SHOAL_HANDLER=${id}`).filter(mayRun)
      for (const pid of pids) sendSignal(pid, 'SIGSTOP')
      return pids.length === 0
    }
    if (await this.#wait(held, KILL_WAIT_MS, signal)) return
    throw new Fault('ENGINE_UNAVAILABLE', `handler ${id} does not stop`, { handler: id })
  }

  async unpause(id: string): Promise<void> {
    this.#signalAll(id, 'SIGCONT')
  }

  async #start(
    spec: SpareSpec,
    purpose: Pick<ProcessState, 'fn' | 'release' | 'specDigest'>,
    signal: AbortSignal,
  ): Promise<void> {
    signal.throwIfAborted()
    const command = await this.#command(spec.runtime)
    const { id } = spec
    const state = { installation: this.#options.installation, id, ...purpose }
    await writeState(spec.folder, state)
    try {
      const child = await this.#spawn(spec, command)
      const identity = identify(child.pid ?? 0) ?? gone(child.pid ?? 0)
      for (const watch of this.#watches) watch.add(id, identity)
      child.once('exit', () => {
        for (const watch of this.#watches) watch.check(id)
      })
      await writeState(spec.folder, { ...state, process: identity })
      signal.throwIfAborted()
    } catch (error) {
      await this.stop(id, 0, timeLimit(KILL_WAIT_MS))
      signal.throwIfAborted()
      const reason = error instanceof Error ? error.message : String(error)
      const what =
        purpose.fn === undefined ? `spare of ${spec.runtime}` : `handler of ${purpose.fn}`
      const message = `cannot start a ${what}: ${reason}`
      throw new Fault('HANDLER_START', message, { handler: id }, { cause: error })
    }
  }

  async stop(id: string, graceMs: number, signal: AbortSignal): Promise<void> {
    const folder = this.#folder(id)
    const state = readState(folder)
    if (state === undefined || state.installation !== this.#options.installation) return
    for (const watch of this.#watches) watch.delete(id)
    const leader = this.#leader(state)
    if (leader !== undefined && isAlive(leader) && graceMs > 0) {
      sendSignal(-leader.pid, 'SIGTERM')
      // Paused, it would not notice.
      sendSignal(-leader.pid, 'SIGCONT')
      await this.#wait(() => !isAlive(leader), graceMs, signal)
    }
    // Only while its leader lives is the group surely ours; what else there is, is found by its environment.
    if (leader !== undefined && isAlive(leader)) sendSignal(-leader.pid, 'SIGKILL')
    const left = (): number[] => pidsWithEnvironment(`SHOAL_HANDLER=${id}`)
    const ended = await this.#wait(
      () => {
        const pids = left()
        for (const pid of pids) sendSignal(pid, 'SIGKILL')
        return pids.length === 0
      },
      KILL_WAIT_MS,
      signal,
    )
    if (!ended) {
      const pids = left().map(String)
      throw new Fault('ENGINE_UNAVAILABLE', `handler ${id} does not end: pids ${pids.join()}`, {
        id,
      })
    }
    for (const file of [this.#output(id), this.#exitFile(id)]) await rm(file, { force: true })
    removeState(folder)
  }

  async tail(id: string, bytesMax: number): Promise<string> {
    let file: FileHandle
    try {
      file = await open(this.#output(id), 'r')
    } catch {
      return ''
    }
    try {
      return (await readEnd(file, bytesMax)).toString('utf8')
    } finally {
      await file.close()
    }
  }

  watch(onExit: (exit: HandlerExit) => void): Disposable {
    const watch = new ProcessWatch({
      onExit: (id) => onExit({ id, exitCode: readExitCode(this.#exitFile(id)), oomKilled: false }),
      boundOutput: (id) => boundOutput(this.#output(id)),
    })
    for (const state of readStates(this.#options.folder, this.#options.installation).values()) {
      const leader = this.#leader(state)
      if (leader !== undefined) watch.add(state.id, leader)
    }
    this.#watches.add(watch)
    return {
      [Symbol.dispose]: () => {
        this.#watches.delete(watch)
        watch[Symbol.dispose]()
      },
    }
  }

  async probe(signal: AbortSignal): Promise<number> {
    const startedAtMs = performance.now()
    try {
      await promisify(execFile)('/bin/sh', ['-c', ':'], { signal, env: {} })
    } catch (cause) {
      signal.throwIfAborted()
      throw new Fault('ENGINE_UNAVAILABLE', 'this host cannot start a process', {}, { cause })
    }
    return performance.now() - startedAtMs
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const watch of this.#watches) watch[Symbol.dispose]()
    this.#watches.clear()
  }

  async #spawn(spec: SpareSpec, command: readonly string[]): Promise<ChildProcess> {
    const { PATH = '/usr/local/bin:/usr/bin:/bin', LANG = 'C.UTF-8' } = this.#options.env
    const output = await open(this.#output(spec.id), 'a', 0o600)
    try {
      const [program, args] = launchCommand(this.#exitFile(spec.id), command)
      const child = spawn(program, args, {
        cwd: spec.folder,
        detached: true,
        stdio: ['ignore', output.fd, output.fd],
        env: {
          ...launchEnvironment(spec.limits),
          PATH,
          LANG,
          HOME: '/tmp',
          SHOAL_SOCKET: join(spec.folder, 's'),
          SHOAL_HANDLER: spec.id,
        },
      })
      await once(child, 'spawn')
      child.unref()
      return child
    } finally {
      await output.close()
    }
  }

  #observe(state: ProcessState): ObservedHandler {
    const { id, fn, release: version, specDigest } = state
    const leader = this.#leader(state)
    const purpose =
      fn === undefined ? {} : { fn, release: version ?? '', specDigest: specDigest ?? '' }
    const common = { id, ...purpose }
    if (leader !== undefined && isAlive(leader)) {
      return { ...common, state: isStopped(leader.pid) ? 'paused' : 'running' }
    }
    if (leader === undefined) return { ...common, state: 'created' }
    const exitCode = readExitCode(this.#exitFile(id))
    return { ...common, state: 'exited', exitCode, oomKilled: false }
  }

  /** The shell around the runner; found by its environment when the agent died between starting it and writing it down. */
  #leader(state: ProcessState): ProcessIdentity | undefined {
    if (state.process !== undefined) return state.process
    const pids = pidsWithEnvironment(`SHOAL_HANDLER=${state.id}`)
    return pids.length === 0 ? undefined : identify(Math.min(...pids))
  }

  /** The leader of a handler that runs, or is paused. @throws Fault `FUNCTION_EXITED` */
  #running(id: string): ProcessIdentity {
    const state = readState(this.#folder(id))
    const ours = state?.installation === this.#options.installation
    const leader = ours ? this.#leader(state) : undefined
    if (leader !== undefined && isAlive(leader)) return leader
    throw new Fault('FUNCTION_EXITED', `handler ${id} does not run`, { handler: id })
  }

  #signalAll(id: string, signal: 'SIGSTOP' | 'SIGCONT'): void {
    const leader = this.#running(id)
    sendSignal(-leader.pid, signal)
    // What has left the group.
    for (const pid of pidsWithEnvironment(`SHOAL_HANDLER=${id}`)) sendSignal(pid, signal)
  }

  async #wait(done: () => boolean, limitMs: number, signal: AbortSignal): Promise<boolean> {
    const deadline = performance.now() + limitMs
    for (let pauseMs = 5; !done(); pauseMs = Math.min(pauseMs * 2, 100)) {
      if (performance.now() > deadline) return false
      await sleep(pauseMs, undefined, { signal })
    }
    return true
  }

  async #command(runtime: Runtime): Promise<readonly string[]> {
    const command = (await this.#options.images.load()).process?.[runtime]?.command
    if (command !== undefined) return command
    throw new Fault(
      'IMAGE_MISSING',
      `this host has no program for runtime ${runtime} outside of containers; \`npm start\` sets it up`,
      { runtime },
    )
  }

  async #isProgram(program: string): Promise<boolean> {
    const folders = isAbsolute(program) ? [''] : (this.#options.env['PATH'] ?? '').split(delimiter)
    for (const folder of folders) {
      const path = folder === '' ? program : join(folder, program)
      if (
        await access(path, constants.X_OK).then(
          () => true,
          () => false,
        )
      )
        return true
    }
    return false
  }

  #folder(id: string): string {
    return join(this.#options.folder, id)
  }

  #output(id: string): string {
    return join(this.#folder(id), 'output')
  }

  #exitFile(id: string): string {
    return join(this.#folder(id), 'exit')
  }
}

/** Stands for a process that had ended before it could be looked at. */
function gone(pid: number): ProcessIdentity {
  return { pid, startTicks: 'gone', bootId: 'gone' }
}
