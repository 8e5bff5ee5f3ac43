import { spawn, type ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { findProgram } from '../command.ts'
import type { LogFile } from './log-file.ts'

const LAST_LINES_MAX = 12
const FAILED_START_GRACE_MS = 5_000
const BACKOFF_FIRST_MS = 100
const BACKOFF_MAX_MS = 10_000
/** A part that ran this long is well again: the next restart is prompt. */
const WELL_AFTER_MS = 30_000

export interface PartSpec {
  readonly name: string
  readonly command: string
  readonly args: readonly string[]
  /** The whole environment; asked for at every start. */
  readonly env: () => NodeJS.ProcessEnv | Promise<NodeJS.ProcessEnv>
  /** True for the line that says "I serve now". */
  readonly ready: (line: string) => boolean
  readonly readyTimeoutMs: number
  readonly log: LogFile
  /** A process began or ended. */
  readonly onPid: (pid: number | undefined) => void
  /** Something a person should know: it died, it is back. */
  readonly onNews: (text: string) => void
}

/** A part could not be started; the message ends with its last lines. */
export class PartFailure extends Error {
  override readonly name = 'PartFailure'
}

/**
 * One program that shall run: started, watched, started again when it ends.
 *
 * ```
 * start() -> starting --ready line--> running --exit--> waiting (backoff) -> starting ...
 *                \--exit: the first time start() fails, later it is news-/      stop() ends it from everywhere
 * ```
 *
 * It ends with us: `setpriv --pdeathsig` has the kernel send it SIGTERM when this process dies, even by SIGKILL.
 */
export class Part {
  readonly #spec: PartSpec
  readonly #stopping = new AbortController()
  #child: ChildProcess | undefined
  #readyLine: string | undefined
  #last: string[] = []
  #attempt = 0
  #loop: Promise<void> = Promise.resolve()

  private constructor(spec: PartSpec) {
    this.#spec = spec
  }

  /** Starts it and resolves when it serves. @throws PartFailure when it ends or is silent instead */
  static async start(spec: PartSpec, signal: AbortSignal): Promise<Part> {
    const part = new Part(spec)
    try {
      await part.#startOnce(AbortSignal.any([signal, part.#stopping.signal]))
    } catch (error) {
      await part.stop(FAILED_START_GRACE_MS)
      throw error
    }
    part.#loop = part.#keepRunning()
    return part
  }

  get name(): string {
    return this.#spec.name
  }

  get pid(): number | undefined {
    return this.#child?.pid
  }

  /** The line with which it last said that it serves. */
  get readyLine(): string | undefined {
    return this.#readyLine
  }

  /** SIGTERM, and after `graceMs` SIGKILL. Resolves when it is gone; true when it went by itself. */
  async stop(graceMs: number): Promise<boolean> {
    this.#stopping.abort()
    const child = this.#child
    let clean = true
    if (child !== undefined && isAlive(child)) {
      const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()))
      child.kill('SIGTERM')
      const timer = setTimeout(() => {
        clean = false
        child.kill('SIGKILL')
      }, graceMs)
      await gone
      clearTimeout(timer)
    }
    await this.#loop
    this.#spec.onPid(undefined)
    return clean
  }

  async #keepRunning(): Promise<void> {
    const { signal } = this.#stopping
    let startedAtMs = Date.now()
    while (!signal.aborted) {
      const how = await exitOf(this.#child)
      if (signal.aborted) return
      this.#attempt = Date.now() - startedAtMs > WELL_AFTER_MS ? 0 : this.#attempt + 1
      this.#spec.onNews(
        `${this.name} ended (${how}); starting it again. Log: ${this.#spec.log.path}`,
      )
      await sleep(backoffMs(this.#attempt), undefined, { signal }).catch(() => undefined)
      startedAtMs = Date.now()
      try {
        if (!signal.aborted) await this.#startOnce(signal)
        if (!signal.aborted) this.#spec.onNews(`${this.name} serves again`)
      } catch (error) {
        // Logged, and the loop sees the exit and tries again, later each time.
        if (!signal.aborted)
          this.#spec.onNews(error instanceof Error ? error.message : String(error))
        this.#child?.kill('SIGKILL')
      }
    }
  }

  async #startOnce(signal: AbortSignal): Promise<void> {
    const { command, args, env, ready, readyTimeoutMs, onPid } = this.#spec
    const [program, all] = dyingWithUs(command, args)
    const environment = await env()
    signal.throwIfAborted()
    this.#last = []
    this.#readyLine = undefined
    // A group of its own: Ctrl+C reaches us alone, and we stop the parts in order.
    const child = spawn(program, all, {
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    })
    this.#child = child
    onPid(child.pid)
    const serves = Promise.withResolvers<void>()
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream, crlfDelay: Infinity }).on('line', (line) => {
        this.#take(line)
        if (this.#readyLine === undefined && ready(line)) {
          this.#readyLine = line
          serves.resolve()
        }
      })
    }
    const failed = (reason: string) => serves.reject(new PartFailure(this.#failure(reason)))
    child.once('error', (error) => failed(error.message))
    child.once('close', (code, killed) => failed(`ended with ${killed ?? `exit code ${code}`}`))
    const timer = setTimeout(
      () => failed(`did not say that it serves within ${readyTimeoutMs} ms`),
      readyTimeoutMs,
    )
    const abort = () => serves.reject(signal.reason)
    signal.addEventListener('abort', abort)
    try {
      signal.throwIfAborted()
      await serves.promise
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', abort)
    }
  }

  #take(line: string): void {
    this.#spec.log.write(line)
    this.#last.push(line)
    if (this.#last.length > LAST_LINES_MAX) this.#last.shift()
  }

  /** What a part says to people is enough where it says something. */
  #failure(reason: string): string {
    const plain = this.#last.filter((line) => line.startsWith(`shoal-${this.name}: `))
    if (plain.length > 0) return `${plain.join('\n')}\n(${reason}; log: ${this.#spec.log.path})`
    return `${this.name} ${reason}. Its last lines (all of them in ${this.#spec.log.path}):\n${this.#last.join('\n')}`
  }
}

function backoffMs(attempt: number): number {
  return Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.max(0, attempt - 1))
}

function isAlive(child: ChildProcess): boolean {
  return child.exitCode === null && child.signalCode === null && child.pid !== undefined
}

async function exitOf(child: ChildProcess | undefined): Promise<string> {
  if (child === undefined) return 'never started'
  if (isAlive(child)) await new Promise((resolve) => child.once('exit', resolve))
  return child.signalCode ?? `exit code ${child.exitCode}`
}

function dyingWithUs(command: string, args: readonly string[]): [string, string[]] {
  const setpriv = findProgram('setpriv')
  if (setpriv === undefined) return [command, [...args]]
  return [setpriv, ['--pdeathsig', 'TERM', command, ...args]]
}
