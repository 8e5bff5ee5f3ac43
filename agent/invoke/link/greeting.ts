import { FRAME, FRAME_LIMITS, ProtocolError, frameName, readHello } from '../frames/index.ts'
import type { HelloMessage } from '../frames/index.ts'
import type { Connection, ConnectionOwner } from './connection.ts'
import type { LinkEnd, RunnerHello } from './types.ts'

/** Versions of the protocol that this agent speaks. */
const VERSION = { min: 1, max: 1 } as const

export interface GreetingOptions {
  readonly handlerId: string
  readonly windowBytes: number
  readonly timeoutMs: number
  /** HELLO has been accepted and WELCOME written: the connection is handed over. */
  readonly onHello: (connection: Connection, hello: RunnerHello) => void
  /** It ended before. */
  readonly onRefused: (reason: string) => void
}

/** Owns a connection from accept to WELCOME: one frame, HELLO, in a few seconds, or it is closed. */
export class Greeting implements ConnectionOwner {
  readonly #options: GreetingOptions
  readonly #timer: NodeJS.Timeout
  #connection: Connection | undefined
  #done = false

  constructor(options: GreetingOptions) {
    this.#options = options
    this.#timer = setTimeout(() => {
      this.end(`No HELLO within ${options.timeoutMs} ms`)
    }, options.timeoutMs)
  }

  /** To be called right after the connection has been made. */
  watch(connection: Connection): void {
    this.#connection = connection
  }

  end(reason: string): void {
    this.#connection?.end({ kind: 'closed', reason })
  }

  frame(
    type: number,
    _flags: number,
    _id: number,
    buffer: Buffer,
    start: number,
    end: number,
  ): void {
    const connection = this.#connection
    if (connection === undefined || connection.over) return
    if (type !== FRAME.hello) {
      if (KNOWN.has(type)) throw new ProtocolError(`${frameName(type)} before HELLO`)
      return
    }
    this.#greet(connection, readHello(buffer, start, end))
  }

  ended(end: LinkEnd): void {
    clearTimeout(this.#timer)
    if (!this.#done) this.#options.onRefused(end.reason)
  }

  #greet(connection: Connection, hello: HelloMessage): void {
    const { handlerId, windowBytes, onHello } = this.#options
    const { min, max } = hello.protocol
    const version = Math.min(max, VERSION.max)
    if (version < Math.max(min, VERSION.min)) {
      return this.#refuse(
        connection,
        `No common protocol version: the runner has ${min} to ${max}, the agent ${VERSION.min} to ${VERSION.max}`,
      )
    }
    if (hello.handler !== handlerId) {
      return this.#refuse(connection, `HELLO names handler ${hello.handler}, not ${handlerId}`)
    }
    clearTimeout(this.#timer)
    this.#done = true
    welcome(connection, {
      protocol: version,
      windowBytes,
      payloadBytesMax: FRAME_LIMITS.payloadBytesMax,
    })
    onHello(connection, { ...hello, protocol: version })
  }

  #refuse(connection: Connection, reason: string): void {
    welcome(connection, { protocol: 0, error: reason })
    connection.end({ kind: 'protocol', reason })
  }
}

const KNOWN: ReadonlySet<number> = new Set(Object.values(FRAME))

function welcome(connection: Connection, message: object): void {
  connection.writer.control(FRAME.welcome, 0, Buffer.from(JSON.stringify(message)))
}
