import { Fault } from '#shared/fault.ts'
import type { Runtime } from '#shared/schemas/names.ts'
import { timeLimit } from '#shared/time-limit.ts'
import { RunnerServer, type RunnerLink } from '#agent/invoke/index.ts'
import type { Engine, HandlerLimits } from './engine.ts'
import type { HandlerFolders } from './handler-record.ts'
import { within } from './within.ts'

export interface SpareOptions {
  readonly id: string
  readonly runtime: Runtime
  /** What the engine makes it from, see `Engine.identity`. */
  readonly identity: string
  readonly limits: HandlerLimits
  readonly engine: Engine
  readonly folders: HandlerFolders
  /** From the engine's start to HELLO. */
  readonly helloMs: number
  /** It cannot be used any more. Not called after `handOver` and `stop`. */
  readonly onEnd: () => void
}

/** A started handler without a function: its runner is connected and waits for INIT. */
export class Spare {
  readonly #options: SpareOptions
  readonly #server: RunnerServer
  readonly #link: RunnerLink
  readonly #heard: { onLink: (link: RunnerLink) => void }

  private constructor(
    options: SpareOptions,
    server: RunnerServer,
    link: RunnerLink,
    heard: { onLink: (link: RunnerLink) => void },
  ) {
    this.#options = options
    this.#server = server
    this.#link = link
    this.#heard = heard
    link.onClose = () => options.onEnd()
  }

  /**
   * Leaves nothing behind when it fails.
   *
   * @throws Fault `IMAGE_MISSING`, `HANDLER_START`, `ENGINE_UNAVAILABLE`, `STORAGE`; the signal's reason
   */
  static async start(options: SpareOptions, signal: AbortSignal): Promise<Spare> {
    const { id, runtime, limits, engine, folders, helloMs } = options
    const arrived = Promise.withResolvers<RunnerLink>()
    const heard = { onLink: arrived.resolve }
    let server: RunnerServer | undefined
    try {
      await folders.createSpare(id)
      const socketPath = folders.socketPath(id)
      const onLink = (link: RunnerLink): void => heard.onLink(link)
      server = await RunnerServer.listen({ socketPath, handlerId: id, onLink })
      await engine.startSpare({ id, runtime, limits, folder: folders.folderOf(id) }, signal)
      const link = await within(arrived.promise, helloMs, signal, () => {
        throw new Fault('HANDLER_START', `its runner did not connect within ${helloMs} ms`)
      })
      if (link.state !== 'greeted') {
        throw new Fault('HANDLER_START', `a spare's runner is ${link.state}`)
      }
      return new Spare(options, server, link, heard)
    } catch (error) {
      await remove(options, server).catch(() => undefined)
      throw error
    }
  }

  get id(): string {
    return this.#options.id
  }

  get runtime(): Runtime {
    return this.#options.runtime
  }

  get identity(): string {
    return this.#options.identity
  }

  /** What it may use until it is given a function's limits. */
  get limits(): HandlerLimits {
    return this.#options.limits
  }

  /** False: its runner is gone. */
  get waiting(): boolean {
    return this.#link.state === 'greeted'
  }

  /** Gives up its socket and its connection; `onLink` gets every later connection of its runner. */
  handOver(onLink: (link: RunnerLink) => void): {
    readonly server: RunnerServer
    readonly link: RunnerLink
  } {
    this.#link.onClose = undefined
    this.#heard.onLink = onLink
    return { server: this.#server, link: this.#link }
  }

  /** Ends and removes it with everything it had. @throws Fault `ENGINE_UNAVAILABLE`, `STORAGE` */
  async stop(): Promise<void> {
    this.#link.onClose = undefined
    await remove(this.#options, this.#server)
  }
}

const REMOVE_MS = 15_000

async function remove(
  { id, engine, folders }: SpareOptions,
  server: RunnerServer | undefined,
): Promise<void> {
  await server?.close()
  await engine.stop(id, 0, timeLimit(REMOVE_MS))
  await folders.remove(id)
}
