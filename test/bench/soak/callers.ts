import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { Client, credentials } from '@grpc/grpc-js'
import { generate, parse, type ParsedPacket } from 'coap-packet'
import { Pool } from 'undici'
import { InvokeRequestSchema, InvokeResponseSchema } from '#proto/index.ts'
import { uriPath } from '#test/raw-coap.ts'
import type { Answer } from './tally.ts'

/** A client of one protocol; `renew` puts a new connection, or a new source endpoint, in place of the old. */
export interface Caller extends AsyncDisposable {
  /** @throws Error when no answer came */
  call(fn: string, body: Buffer): Promise<Answer>
  renew(): Promise<void>
}

const TIMEOUT_MS = 40_000

export function httpCaller(port: number): Caller {
  const open = (): Pool => new Pool(`http://127.0.0.1:${port}`, { connections: 1 })
  let pool = open()
  return {
    async call(fn, body) {
      const signal = AbortSignal.timeout(TIMEOUT_MS)
      const sent = { path: `/${fn}`, method: 'POST' as const, body, signal }
      const answer = await pool.request(sent)
      const bytes = await answer.body.arrayBuffer().then(
        (whole) => Buffer.from(whole),
        () => undefined,
      )
      if (bytes === undefined) return { code: 'broken off', body: NOTHING }
      if (answer.statusCode === 200) return { code: 'ok', body: bytes }
      return { code: `${answer.statusCode} ${codeIn(bytes)}`, body: bytes }
    },
    async renew() {
      await pool.close()
      pool = open()
    },
    [Symbol.asyncDispose]: () => pool.close(),
  }
}

export function grpcCaller(port: number): Caller {
  // A channel argument of its own: clients with equal ones would share one connection.
  const open = (): Client =>
    new Client(`127.0.0.1:${port}`, credentials.createInsecure(), { 'shoal.soak': (channels += 1) })
  let client = open()
  return {
    call: (fn, payload) => {
      const request = Buffer.from(
        toBinary(InvokeRequestSchema, create(InvokeRequestSchema, { function: fn, payload })),
      )
      const deadline = Date.now() + TIMEOUT_MS
      return new Promise((resolve) => {
        client.makeUnaryRequest(
          INVOKE,
          identity,
          identity,
          request,
          { deadline },
          (error, bytes) => {
            if (error !== null) {
              const code = `${error.code} ${String(error.metadata.get('shoal-code')[0])}`
              return resolve({ code, body: Buffer.from(error.details) })
            }
            const { status, payload: body } = fromBinary(InvokeResponseSchema, bytes ?? NOTHING)
            return resolve({
              code: status === 200 ? 'ok' : String(status),
              body: Buffer.from(body),
            })
          },
        )
      })
    },
    async renew() {
      client.close()
      client = open()
    },
    async [Symbol.asyncDispose]() {
      client.close()
    },
  }
}

let channels = 0
const INVOKE = '/shoal.v1.Functions/Invoke'
const NOTHING = Buffer.alloc(0)
const identity = (bytes: Buffer): Buffer => bytes

/** Source addresses in use: so many peers are known to the agent by their address alone, and each renewal takes a new port. */
export const COAP_PEERS = 10_000
const PER_OCTET = 250
/** RFC 7252 section 4.8: ACK_TIMEOUT and MAX_RETRANSMIT. */
const ACK_TIMEOUT_MS = 2_000
const RETRANSMIT_MAX = 4

/** Confirmable requests, sent again until they are acknowledged; each renewal is another of 10,000 peers. */
export async function coapCaller(port: number): Promise<Caller> {
  let endpoint = await CoapEndpoint.open(port)
  return {
    call: (fn, body) => endpoint.call(fn, body),
    async renew() {
      await endpoint[Symbol.asyncDispose]()
      endpoint = await CoapEndpoint.open(port)
    },
    [Symbol.asyncDispose]: () => endpoint[Symbol.asyncDispose](),
  }
}

let peers = 0

class CoapEndpoint implements AsyncDisposable {
  readonly #socket = createSocket('udp4')
  readonly #port: number
  #messageId = Math.floor(Math.random() * 65_536)
  #onPacket: ((packet: ParsedPacket) => void) | undefined

  private constructor(port: number) {
    this.#port = port
    this.#socket.on('message', (datagram) => this.#onPacket?.(parse(datagram)))
  }

  static async open(port: number): Promise<CoapEndpoint> {
    const n = (peers += 1) % COAP_PEERS
    const endpoint = new CoapEndpoint(port)
    endpoint.#socket.bind(0, `127.1.${1 + Math.floor(n / PER_OCTET)}.${1 + (n % PER_OCTET)}`)
    await once(endpoint.#socket, 'listening')
    return endpoint
  }

  /** One at a time. @throws Error when nothing came in time */
  async call(fn: string, payload: Buffer): Promise<Answer> {
    const messageId = (this.#messageId = (this.#messageId + 1) % 65_536)
    const token = Buffer.from([messageId >> 8, messageId & 0xff])
    const options = uriPath(fn)
    const request = { code: '0.02', confirmable: true, messageId, token, options, payload } as const
    const datagram = generate(request, 65_507)
    const { promise, resolve, reject } = Promise.withResolvers<Answer>()
    let again: NodeJS.Timeout | undefined
    const send = (attempt: number): void => {
      this.#send(datagram)
      if (attempt < RETRANSMIT_MAX) {
        again = setTimeout(send, ACK_TIMEOUT_MS * 2 ** attempt, attempt + 1)
      }
    }
    const lost = setTimeout(() => reject(new Error('no answer')), TIMEOUT_MS)
    this.#onPacket = (packet) => {
      if (packet.messageId === messageId) clearTimeout(again)
      if (packet.reset && packet.messageId === messageId) reject(new Error('reset'))
      // An empty acknowledgement: the answer comes separately.
      if (packet.code === '0.00') return
      if (packet.confirmable) {
        this.#send(generate({ code: '0.00', ack: true, messageId: packet.messageId }))
      }
      if (!packet.token.equals(token)) return
      const isRight = packet.code.startsWith('2.')
      resolve({
        code: isRight ? 'ok' : `${packet.code} ${codeIn(packet.payload)}`,
        body: packet.payload,
      })
    }
    send(0)
    try {
      return await promise
    } finally {
      clearTimeout(again)
      clearTimeout(lost)
    }
  }

  #send(datagram: Buffer): void {
    this.#socket.send(datagram, this.#port, '127.0.0.1')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#socket, 'close')
    this.#socket.close()
    await closed
  }
}

/** The first word that looks like a fault's code. */
function codeIn(bytes: Buffer): string {
  return /[A-Z]+(?:_[A-Z]+)+|INTERNAL/.exec(bytes.toString('latin1', 0, 1_000))?.[0] ?? ''
}
