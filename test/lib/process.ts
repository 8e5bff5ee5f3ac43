import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { reapAtExit } from './reaper.ts'

/** For whoever looks for a line of an agent that logs each call. */
const OUTPUT_LINES_MAX = 20_000
const FAILURE_LINES_MAX = 500

export interface ChildOptions {
  /** Script (run with this Node) or, with `command`, nothing. */
  readonly script?: string
  /** Another program than this Node. */
  readonly command?: string
  readonly args?: readonly string[]
  /** Added to this process' environment; `undefined` takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly cwd?: string
  /** True for the line (stdout or stderr) that says "I serve now". Default: a JSON line with `msg: "ready"`. */
  readonly ready?: (line: string) => boolean
  /** Default 60,000. */
  readonly readyTimeoutMs?: number
}

export interface ChildExit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** A program as a child process. Disposing ends it by force and waits until it is gone. */
export interface ChildScope extends AsyncDisposable {
  readonly pid: number
  readonly exited: Promise<ChildExit>
  /** Last lines of stdout and stderr. */
  output(): string
  /** The line that said "ready". */
  readonly readyLine: string
  /** Resolves to the first line, printed before or after this call, that matches. */
  line(matches: (line: string) => boolean, timeoutMs?: number): Promise<string>
  /** Sends the signal (default SIGKILL) and waits for the end. */
  kill(signal?: NodeJS.Signals): Promise<ChildExit>
}

/** Starts a program and waits until it says that it serves. @throws with its output when it ends or is silent instead */
export async function childScope(options: ChildOptions): Promise<ChildScope> {
  const command = options.command ?? process.execPath
  const args = [...(options.script === undefined ? [] : [options.script]), ...(options.args ?? [])]
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  reapAtExit(child)
  const what = [command, ...args].join(' ')
  const lines = new Lines(child, what)
  const exited = new Promise<ChildExit>((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }))
    child.once('error', () => resolve({ code: null, signal: null }))
  })
  const kill = async (signal: NodeJS.Signals = 'SIGKILL'): Promise<ChildExit> => {
    child.kill(signal)
    return exited
  }
  let readyLine: string
  try {
    readyLine = await lines.find(options.ready ?? isReadyLine, options.readyTimeoutMs ?? 60_000)
  } catch (error) {
    await kill()
    throw error
  }
  return {
    pid: child.pid ?? -1,
    exited,
    readyLine,
    output: () => lines.text(),
    line: (matches, timeoutMs = 30_000) => lines.find(matches, timeoutMs),
    kill,
    async [Symbol.asyncDispose]() {
      await kill()
    },
  }
}

/** True for a pino line whose message is `ready`: how agent and controller say that they serve. */
export function isReadyLine(line: string): boolean {
  if (!line.startsWith('{')) return false
  try {
    const event: { msg?: unknown } = JSON.parse(line)
    return event.msg === 'ready'
  } catch {
    return false
  }
}

class Lines {
  readonly #what: string
  readonly #kept: string[] = []
  readonly #waiting = new Set<{ see(line: string): void; end(reason: string): void }>()
  #ended: string | undefined

  constructor(child: ChildProcess, what: string) {
    this.#what = what
    child.once('error', (error) => this.#end(error.message))
    // 'close' and not 'exit': the last lines come after the end of the process.
    child.once('close', (code, signal) => this.#end(`ended with ${signal ?? `exit code ${code}`}`))
    for (const stream of [child.stdout, child.stderr]) {
      if (stream === null) continue
      createInterface({ input: stream, crlfDelay: Infinity }).on('line', (line) => this.#add(line))
    }
  }

  text(): string {
    return this.#kept.join('\n')
  }

  async find(matches: (line: string) => boolean, timeoutMs: number): Promise<string> {
    const early = this.#kept.find(matches)
    if (early !== undefined) return early
    if (this.#ended !== undefined) throw this.#failure(this.#ended)
    const found = Promise.withResolvers<string>()
    const waiter = {
      see: (line: string) => {
        if (matches(line)) found.resolve(line)
      },
      end: (reason: string) => found.reject(this.#failure(reason)),
    }
    this.#waiting.add(waiter)
    const timer = setTimeout(() => waiter.end(`silent for ${timeoutMs} ms`), timeoutMs)
    try {
      return await found.promise
    } finally {
      clearTimeout(timer)
      this.#waiting.delete(waiter)
    }
  }

  #add(line: string): void {
    this.#kept.push(line)
    if (this.#kept.length > OUTPUT_LINES_MAX) this.#kept.shift()
    for (const waiter of this.#waiting) waiter.see(line)
  }

  #end(reason: string): void {
    this.#ended ??= reason
    for (const waiter of this.#waiting) waiter.end(reason)
  }

  #failure(reason: string): Error {
    const last = this.#kept.slice(-FAILURE_LINES_MAX).join('\n')
    return new Error(`${this.#what}: ${reason}; its last output was:\n${last}`)
  }
}

/** Waits for a plain child process (one that this module did not start) to end. */
export async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
}
