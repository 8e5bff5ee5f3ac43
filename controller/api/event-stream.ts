import type { Server } from 'node:http'
import type { Duplex } from 'node:stream'
import type { IncomingMessage } from 'node:http'
import { WebSocketServer, type WebSocket } from 'ws'
import { tokenCheck } from './auth.ts'
import type { EventHub } from '../events/index.ts'

const PATH = '/v1/events'
const CLIENTS_MAX = 100
/** A client that lets this much pile up is cut off; it comes back and reads the state anew. */
const BUFFERED_BYTES_MAX = 1024 * 1024
const PING_MS = 30_000
/** Clients have nothing to say. */
const INCOMING_BYTES_MAX = 1024
const REFUSE_MS = 2_000
const TRY_AGAIN_LATER = 1013
const GOING_AWAY = 1001

export interface EventStreamOptions {
  readonly server: Server
  readonly token: string
  readonly events: EventHub
  /** How long a client that is refused has to take the answer. Default 2,000. */
  readonly refuseMs?: number
}

/** `GET /v1/events` as WebSocket: every event as one JSON text. Token by header, or by `?token=` for browsers. */
export class EventStream {
  readonly #options: EventStreamOptions
  readonly #sockets = new WebSocketServer({ noServer: true, maxPayload: INCOMING_BYTES_MAX })
  readonly #alive = new WeakSet<WebSocket>()
  /** Neither the HTTP server nor the WebSocket server knows them any more. */
  readonly #refused = new Set<Duplex>()
  readonly #isRight: (given: string | undefined) => boolean
  readonly #timer: NodeJS.Timeout
  #unsubscribe: (() => void) | undefined

  constructor(options: EventStreamOptions) {
    this.#options = options
    this.#isRight = tokenCheck(options.token)
    options.server.on('upgrade', this.#onUpgrade)
    this.#timer = setInterval(() => this.#ping(), PING_MS)
    this.#timer.unref()
  }

  close(): void {
    clearInterval(this.#timer)
    this.#options.server.off('upgrade', this.#onUpgrade)
    this.#unsubscribe?.()
    this.#unsubscribe = undefined
    for (const socket of this.#sockets.clients) {
      socket.close(GOING_AWAY, 'the controller stops')
      socket.terminate()
    }
    for (const socket of this.#refused) socket.destroy()
  }

  readonly #onUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    // Until it is a WebSocket nobody else listens to its errors.
    const onError = () => socket.destroy()
    socket.on('error', onError)
    const url = URL.parse(request.url ?? '', 'http://controller')
    if (url?.pathname !== PATH) return this.#refuse(socket, '404 Not Found')
    const bearer = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1]
    if (!this.#isRight(bearer ?? url.searchParams.get('token') ?? undefined)) {
      return this.#refuse(socket, '401 Unauthorized')
    }
    if (this.#sockets.clients.size >= CLIENTS_MAX)
      return this.#refuse(socket, '503 Service Unavailable')
    this.#sockets.handleUpgrade(request, socket, head, (client) => {
      socket.off('error', onError)
      this.#welcome(client)
    })
  }

  #refuse(socket: Duplex, status: string): void {
    this.#refused.add(socket)
    const letGo = () => socket.destroy()
    const timer = setTimeout(letGo, this.#options.refuseMs ?? REFUSE_MS)
    socket.once('close', () => {
      clearTimeout(timer)
      this.#refused.delete(socket)
    })
    socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, letGo)
  }

  #welcome(client: WebSocket): void {
    this.#alive.add(client)
    client.on('pong', () => this.#alive.add(client))
    client.on('error', () => client.terminate())
    client.on('close', () => {
      if (this.#sockets.clients.size > 0) return
      this.#unsubscribe?.()
      this.#unsubscribe = undefined
    })
    // Events are made only while somebody listens.
    this.#unsubscribe ??= this.#options.events.subscribe((event) => {
      const text = JSON.stringify(event)
      for (const socket of this.#sockets.clients) send(socket, text)
    })
  }

  #ping(): void {
    for (const client of this.#sockets.clients) {
      if (!this.#alive.delete(client)) client.terminate()
      else client.ping()
    }
  }
}

function send(client: WebSocket, text: string): void {
  if (client.readyState !== client.OPEN) return
  if (client.bufferedAmount > BUFFERED_BYTES_MAX) {
    client.close(TRY_AGAIN_LATER, 'too slow')
    client.terminate()
    return
  }
  client.send(text)
}
