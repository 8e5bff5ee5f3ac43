import { fork, type ChildProcess } from 'node:child_process'
import { Socket } from 'node:net'
import type { Logger } from 'pino'
import { CallPort, type Invoker } from '#agent/invoke/index.ts'
import { memorySharedBy } from '#agent/sockets/index.ts'
import { Fault } from '#shared/fault.ts'
import type { FromWorker, ToWorker } from './model.ts'

/** The calls' socket among the child's descriptors: behind the standard ones and the channel for messages. */
const CALLS_FD = 4

/** One worker, from its start to its end. */
export class WorkerProcess {
  /** What ended it, once it has ended. */
  readonly exited: Promise<string>
  readonly #child: ChildProcess
  readonly #port: CallPort
  readonly #opened = Promise.withResolvers<void>()

  /**
   * @param script - `worker.ts`, or what was made of it
   * @param workers - so many there are; the agent's own process needs memory as well
   * @throws Fault `INTERNAL` when there can be no process
   */
  constructor(script: string, workers: number, invoker: Invoker, log: Logger) {
    const stdio = ['ignore', 'inherit', 'inherit', 'ipc', 'pipe'] as const
    const child = fork(script, [memorySharedBy(workers + 1)], { stdio: [...stdio] })
    this.#child = child
    this.exited = new Promise((resolve) => {
      child.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`))
      child.once('error', (error) => resolve(error.message))
    })
    // Without descriptors to spare there are no streams at all, whatever the types say.
    const calls: unknown = Reflect.get(child, 'stdio')?.[CALLS_FD]
    if (!(calls instanceof Socket)) throw new Fault('INTERNAL', 'a worker cannot be started')
    this.#port = new CallPort(calls, invoker, log)
    this.#port.onEnd = () => child.kill('SIGKILL')
    void this.exited.then((how) =>
      this.#opened.reject(new Fault('INTERNAL', `a worker ended before it was ready: ${how}`)),
    )
    this.#opened.promise.catch(() => undefined)
    child.on('message', (message: FromWorker) => {
      if (message.kind === 'opened') return this.#opened.resolve()
      const { code, message: text, details } = message
      this.#opened.reject(new Fault(code, text, details))
    })
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  /** Resolves when its ports are open. @throws Fault `PORT_TAKEN`, `CONFIG_INVALID`, `INTERNAL` */
  open(message: Extract<ToWorker, { kind: 'open' }>): Promise<void> {
    this.sendNames()
    this.#tell(message)
    return this.#opened.promise
  }

  sendNames(): void {
    this.#port.sendNames()
  }

  /** Resolves when it has gone: by itself, or by force after `withinMs`. */
  async close(drainMs: number, withinMs: number): Promise<void> {
    this.#tell({ kind: 'close', drainMs })
    const force = setTimeout(() => this.#child.kill('SIGKILL'), withinMs)
    await this.exited
    clearTimeout(force)
  }

  #tell(message: ToWorker): void {
    // One that has gone meanwhile is told nothing; `exited` says so.
    if (this.#child.connected) this.#child.send(message, () => undefined)
  }
}
