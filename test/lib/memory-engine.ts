import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type {
  Engine,
  HandlerExit,
  HandlerSpec,
  ObservedHandler,
  SpareSpec,
} from '#agent/handlers/index.ts'
import { Fault } from '#shared/fault.ts'
import { TYPE, cutFrames, frameBytes, responseBytes, type WireFrame } from './frame-peer.ts'

type Asked = 'start' | 'pause' | 'unpause'

interface Process {
  readonly spec: SpareSpec
  socket: Socket | undefined
  paused: boolean
  /** What INIT has told it. */
  loaded: object | undefined
  hangs: boolean
}

const RECONNECT_MS = 20
const READY = frameBytes(TYPE.ready, 0, '{"ok":true}')

/** An engine whose handlers are sockets in this process: quick, and it goes wrong exactly when a test says so. */
export class MemoryEngine implements Engine {
  readonly kind = 'process'
  startMs = 20
  callMs = 5
  /** What handlers are made of; undefined: the images cannot be read. */
  image: string | undefined = 'memory'
  /** False: runners do not answer PING. */
  answersPing = true
  /** Called before the engine does what it is asked for; what it throws is the engine's answer. */
  before: (asked: Asked) => void | Promise<void> = () => {}
  /** How often it was asked. */
  readonly asked: Record<Asked, number> = { start: 0, pause: 0, unpause: 0 }
  readonly #processes = new Map<string, Process>()
  readonly #watches = new Set<(exit: HandlerExit) => void>()

  /** Handlers that are there, paused ones too. */
  get size(): number {
    return this.#processes.size
  }

  async identity(): Promise<string> {
    if (this.image === undefined) throw new Fault('IMAGE_MISSING', 'no runtime images')
    return this.image
  }

  codeDirInside(): string {
    return '/nowhere'
  }

  async version(): Promise<string> {
    return '1'
  }

  async runtimes(): Promise<readonly []> {
    return []
  }

  async list(): Promise<readonly ObservedHandler[]> {
    return Array.from(this.#processes, ([id, { paused }]) => {
      return { id, state: paused ? 'paused' : 'running' }
    })
  }

  async start(spec: HandlerSpec): Promise<void> {
    await this.startSpare(spec)
  }

  async startSpare(spec: SpareSpec): Promise<void> {
    await this.#ask('start')
    await sleep(this.startMs)
    const process: Process = {
      spec,
      socket: undefined,
      paused: false,
      loaded: undefined,
      hangs: false,
    }
    this.#processes.set(spec.id, process)
    this.#connect(process)
  }

  async update(): Promise<void> {}

  async pause(id: string): Promise<void> {
    await this.#ask('pause')
    const process = this.#processes.get(id)
    if (process !== undefined) process.paused = true
  }

  async unpause(id: string): Promise<void> {
    await this.#ask('unpause')
    const process = this.#processes.get(id)
    if (process !== undefined) process.paused = false
  }

  async stop(id: string): Promise<void> {
    const process = this.#processes.get(id)
    this.#processes.delete(id)
    process?.socket?.destroy()
  }

  /** All of them end by themselves, or the newest so many. */
  kill(count = Number.POSITIVE_INFINITY): void {
    for (const id of [...this.#processes.keys()].slice(-count)) this.#exit(id, 1)
  }

  /** Those that are there answer nothing any more, neither calls nor PING. */
  hang(): void {
    for (const process of this.#processes.values()) process.hangs = true
  }

  async tail(): Promise<string> {
    return ''
  }

  watch(onExit: (exit: HandlerExit) => void): Disposable {
    this.#watches.add(onExit)
    return { [Symbol.dispose]: () => this.#watches.delete(onExit) }
  }

  async probe(): Promise<number> {
    return 1
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #ask(asked: Asked): Promise<void> {
    this.asked[asked] += 1
    await this.before(asked)
  }

  /** To the agent that is there, and to the next one when it has gone. */
  #connect(process: Process): void {
    const { spec, loaded, paused } = process
    const { id, runtime, folder } = spec
    if (this.#processes.get(id) !== process) return
    const again = (): void => void setTimeout(() => this.#connect(process), RECONNECT_MS).unref()
    if (paused) return again()
    const socket = connect(join(folder, 's'))
    process.socket = socket
    socket.on('error', () => {}).on('close', again)
    const protocol = { min: 1, max: 1 }
    const state = loaded === undefined ? 'empty' : 'ready'
    const hello = { protocol, handler: id, runtime, runner: '1.0.0', pid: 1, state, ...loaded }
    socket.write(frameBytes(TYPE.hello, 0, JSON.stringify(hello)))
    if (loaded !== undefined) socket.write(READY)
    let rest: Buffer = Buffer.alloc(0)
    socket.on('data', (chunk: Buffer) => {
      const cut = cutFrames(Buffer.concat([rest, chunk]))
      rest = cut.rest
      for (const frame of cut.frames) this.#take(process, socket, frame)
    })
  }

  #take(process: Process, socket: Socket, frame: WireFrame): void {
    const { type, payload } = frame
    if (process.hangs) return
    if (type === TYPE.init) {
      const { fn, release }: { fn: string; release: string } = JSON.parse(payload.toString())
      process.loaded = { fn, release }
      socket.write(READY)
    }
    if (type === TYPE.ping && this.answersPing) {
      socket.write(frameBytes(TYPE.pong, frame.id, payload))
    }
    if (type === TYPE.request) {
      setTimeout(() => socket.write(responseBytes(frame.id, 'ok')), this.callMs)
    }
    if (type === TYPE.shutdown) this.#exit(process.spec.id, 0)
  }

  #exit(id: string, exitCode: number): void {
    const process = this.#processes.get(id)
    this.#processes.delete(id)
    process?.socket?.destroy()
    for (const onExit of this.#watches) onExit({ id, exitCode, oomKilled: false })
  }
}
