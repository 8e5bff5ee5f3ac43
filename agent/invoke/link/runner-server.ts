import { once } from 'node:events'
import { chmod, lstat, unlink } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { Server, Socket } from 'node:net'
import { room } from '#agent/sockets/index.ts'
import { Fault } from '#shared/fault.ts'
import { FRAME_LIMITS } from '../frames/index.ts'
import { Connection } from './connection.ts'
import { Greeting } from './greeting.ts'
import { RunnerLink } from './runner-link.ts'
import type { RunnerHello } from './types.ts'

/** `sun_path` of unix(7), without its final zero. */
const SOCKET_PATH_BYTES_MAX = 107

/** Connections that have not said HELLO yet; one more is closed at once. */
const GREETINGS_MAX = 4

export interface RunnerServerOptions {
  /** At most 107 bytes. An old socket file there is removed. */
  readonly socketPath: string
  /** The only id that HELLO may name. */
  readonly handlerId: string
  /**
   * Called for each runner that has said HELLO and got WELCOME; an older link has been closed (`replaced`) before. Set
   * `onLog` and `onClose` in it.
   */
  readonly onLink: (link: RunnerLink) => void
  /** A connection was turned away before it became a link: wrong id, no common version, no HELLO in time, another protocol. */
  readonly onRefused?: (reason: string) => void
  /** Body bytes that each side of a call may send ahead; 65,536 to 1,048,576, default 262,144, or less where memory is short. */
  readonly windowBytes?: number
  /** Default 5,000. */
  readonly helloTimeoutMs?: number
}

/** Listens on one handler's Unix socket; at most one runner is linked, the newest. */
export class RunnerServer implements AsyncDisposable {
  readonly #options: RunnerServerOptions
  readonly #server: Server
  readonly #greetings = new Set<Greeting>()
  #link: RunnerLink | undefined
  #closing: Promise<void> | undefined

  private constructor(options: RunnerServerOptions) {
    this.#options = options
    this.#server = createServer({ pauseOnConnect: true }, (socket) => this.#accept(socket))
  }

  /** @throws Fault `CONFIG_INVALID` (path too long), `STORAGE` (cannot listen there) */
  static async listen(options: RunnerServerOptions): Promise<RunnerServer> {
    const { socketPath, windowBytes = room.windowBytes } = options
    const pathBytes = Buffer.byteLength(socketPath)
    if (pathBytes > SOCKET_PATH_BYTES_MAX) {
      throw new Fault(
        'CONFIG_INVALID',
        `A socket's path may have ${SOCKET_PATH_BYTES_MAX} bytes, ${socketPath} has ${pathBytes}: choose a shorter data folder`,
        { pathBytes, pathBytesMax: SOCKET_PATH_BYTES_MAX },
      )
    }
    if (windowBytes < FRAME_LIMITS.windowBytesMin || windowBytes > FRAME_LIMITS.windowBytesMax) {
      throw new RangeError(`windowBytes is ${windowBytes}`)
    }
    const server = new RunnerServer({ ...options, windowBytes })
    await server.#listen(socketPath)
    return server
  }

  /** The newest live link. */
  get link(): RunnerLink | undefined {
    return this.#link?.state === 'closed' ? undefined : this.#link
  }

  /** Closes the link, stops listening, removes the socket file. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #listen(socketPath: string): Promise<void> {
    try {
      await removeSocket(socketPath)
      this.#server.listen(socketPath)
      await once(this.#server, 'listening')
      // The runner inside a container has another user id.
      await chmod(socketPath, 0o666)
    } catch (error) {
      this.#server.close()
      throw new Fault(
        'STORAGE',
        `Cannot listen on ${socketPath}: ${Fault.from(error).message}`,
        {},
        { cause: error },
      )
    }
    // After this, an error can only come from accept (no descriptors left): the runner tries again.
    this.#server.on('error', (error) => this.#refused(`accept: ${error.message}`))
  }

  async #close(): Promise<void> {
    const closed = Promise.withResolvers<void>()
    this.#server.close(() => closed.resolve())
    for (const greeting of this.#greetings) greeting.end('The agent stopped listening')
    this.#link?.close()
    await closed.promise
  }

  #accept(socket: Socket): void {
    if (this.#greetings.size >= GREETINGS_MAX || this.#closing !== undefined) {
      socket.destroy()
      this.#refused(`More than ${GREETINGS_MAX} connections without HELLO`)
      return
    }
    const greeting = new Greeting({
      handlerId: this.#options.handlerId,
      windowBytes: this.#options.windowBytes ?? room.windowBytes,
      timeoutMs: this.#options.helloTimeoutMs ?? 5_000,
      onHello: (connection, hello) => {
        this.#greetings.delete(greeting)
        this.#open(connection, hello)
      },
      onRefused: (reason) => {
        this.#greetings.delete(greeting)
        this.#refused(reason)
      },
    })
    this.#greetings.add(greeting)
    greeting.watch(new Connection(socket, greeting))
  }

  #open(connection: Connection, hello: RunnerHello): void {
    this.#link?.replace()
    const windowBytes = this.#options.windowBytes ?? room.windowBytes
    const link = new RunnerLink(connection, hello, windowBytes)
    connection.handTo(link)
    this.#link = link
    this.#options.onLink(link)
  }

  #refused(reason: string): void {
    this.#options.onRefused?.(reason)
  }
}

async function removeSocket(path: string): Promise<void> {
  const found = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (found === undefined) return
  if (!found.isSocket()) throw new Error('something that is not a socket is in the way')
  await unlink(path)
}
