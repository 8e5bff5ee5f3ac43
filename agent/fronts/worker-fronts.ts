import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Invoker } from '#agent/invoke/index.ts'
import { Fault } from '#shared/fault.ts'
import { LOG_KEYS } from '#shared/log-keys.ts'
import type { FrontPorts, Fronts, FrontSettings, FrontsOptions } from './model.ts'
import { OwnFronts } from './own-fronts.ts'
import { WorkerProcess } from './worker-process.ts'

/** Beside the sources, or beside the bundle that this is part of. */
const SCRIPT = fileURLToPath(
  new URL(import.meta.url.endsWith('.ts') ? './worker.ts' : './agent-worker.mjs', import.meta.url),
)

/** The workers of an agent that was killed need a moment to see it. */
const TAKEN_TRIES = 5
const TAKEN_AGAIN_MS = 100
/** For the last answers, beyond `drainMs`. */
const CLOSE_WITHIN_MS = 2_000
const RESTART_MS = { first: 100, last: 10_000 } as const
/** One that lived so long did not fail because of how it was started. */
const LIVED_MS = 10_000

/** Says when other functions run than before. */
export interface NamingInvoker extends Invoker {
  onNames: (() => void) | undefined
}

export interface WorkerFrontsOptions extends FrontsOptions {
  readonly invoker: NamingInvoker
  /** At least 2. */
  readonly workers: number
}

/**
 * The fronts in processes of their own, all of them on the same ports: the kernel gives each its part of connections and CoAP peers. One
 * that ends is started again while the others serve.
 */
export class WorkerFronts implements Fronts {
  readonly ports: FrontPorts
  readonly #options: WorkerFrontsOptions
  readonly #settings: FrontSettings
  /** Those that serve. */
  readonly #serving = new Set<WorkerProcess>()
  readonly #running = new Set<WorkerProcess>()
  readonly #stop = new AbortController()
  #renaming = false
  #closing: Promise<void> | undefined

  private constructor(options: WorkerFrontsOptions, ports: FrontPorts) {
    const { host, bodyBytesMax } = options
    this.#options = options
    this.ports = ports
    // Which ports are free has been found out; those that are off stay so.
    const wanted = { http: ports.http || -1, coap: ports.coap || -1, grpc: ports.grpc || -1 }
    this.#settings = { host, ports: wanted, bodyBytesMax }
    options.invoker.onNames = () => this.#sendNames()
  }

  /** @throws Fault `PORT_TAKEN`, `CONFIG_INVALID` */
  static async open(options: WorkerFrontsOptions): Promise<WorkerFronts> {
    const fronts = new WorkerFronts(options, await freePorts(options))
    try {
      const all = Array.from({ length: options.workers }, () => fronts.#start())
      await Promise.all(all.map(({ opened }) => opened))
      for (const { worker } of all) void fronts.#keep(worker)
      return fronts
    } catch (error) {
      await fronts.close(0)
      throw error
    }
  }

  get blocked(): string | undefined {
    return this.#serving.size > 0 ? undefined : 'no worker runs'
  }

  get pids(): readonly number[] {
    return [...this.#running].map(({ pid }) => pid)
  }

  close(drainMs = 0): Promise<void> {
    this.#closing ??= this.#close(drainMs)
    return this.#closing
  }

  async #close(drainMs: number): Promise<void> {
    this.#stop.abort()
    const within = drainMs + CLOSE_WITHIN_MS
    await Promise.all([...this.#running].map((worker) => worker.close(drainMs, within)))
    this.#options.invoker.onNames = undefined
  }

  #start(): { readonly worker: WorkerProcess; readonly opened: Promise<void> } {
    const { invoker, workers, log } = this.#options
    const worker = new WorkerProcess(SCRIPT, workers, invoker, log)
    this.#running.add(worker)
    void worker.exited.then(() => this.#forget(worker))
    const settings = this.#settings
    const opened = worker
      .open({ kind: 'open', settings, workers, logLevel: log.level })
      .then(() => void this.#serving.add(worker))
    // When the next one cannot be started at all, nobody waits for this one.
    opened.catch(() => undefined)
    return { worker, opened }
  }

  #forget(worker: WorkerProcess): void {
    this.#running.delete(worker)
    this.#serving.delete(worker)
  }

  /** One place among the workers: whoever has it is followed by another one. */
  async #keep(first: WorkerProcess): Promise<void> {
    const { signal } = this.#stop
    let worker: WorkerProcess | undefined = first
    let pauseMs: number = RESTART_MS.first
    while (!signal.aborted) {
      const sinceMs = performance.now()
      const reason = await worker?.exited
      if (signal.aborted) return
      const fields = { pid: worker?.pid, reason, againMs: pauseMs }
      this.#options.log.warn(fields, 'worker ended; another one is started')
      if (performance.now() - sinceMs > LIVED_MS) pauseMs = RESTART_MS.first
      await sleep(pauseMs, undefined, { signal }).catch(() => undefined)
      pauseMs = Math.min(RESTART_MS.last, 2 * pauseMs)
      if (!signal.aborted) worker = this.#startAgain()
    }
  }

  #startAgain(): WorkerProcess | undefined {
    const failed = (error: unknown): void => {
      this.#options.log.error({ [LOG_KEYS.err]: error }, 'worker not started')
    }
    try {
      const { worker, opened } = this.#start()
      opened.catch(failed)
      return worker
    } catch (error) {
      failed(error)
      return undefined
    }
  }

  /** Once for many functions that come together. */
  #sendNames(): void {
    if (this.#renaming) return
    this.#renaming = true
    setImmediate(() => {
      this.#renaming = false
      for (const worker of this.#running) worker.sendNames()
    })
  }
}

/**
 * The ports, for they are shared only among the workers: anybody else on them, a second agent too, must be found out before.
 *
 * @throws Fault `PORT_TAKEN`, `CONFIG_INVALID`
 */
async function freePorts(options: WorkerFrontsOptions): Promise<FrontPorts> {
  for (let left = TAKEN_TRIES; ; left -= 1) {
    try {
      await using probe = await OwnFronts.open(options)
      return probe.ports
    } catch (error) {
      if (left === 0 || !Fault.is(error, 'PORT_TAKEN')) throw error
    }
    await sleep(TAKEN_AGAIN_MS)
  }
}
