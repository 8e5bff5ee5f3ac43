/** Load for protocols that no tool at hand can load: CoAP over raw datagrams, gRPC over raw HTTP/2. */
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { type ClientHttp2Session, connect } from 'node:http2'
import { create, toBinary } from '@bufbuild/protobuf'
import { generate } from 'coap-packet'
import { InvokeRequestSchema } from '#proto/gen/shoal_pb.ts'
import { DataSchema } from '#proto/gen/tinyfaas_pb.ts'

export interface Load {
  readonly callsPerSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly failed: number
}

const BODY = Buffer.alloc(100, 'x')
const CONNECTIONS = 8
const IN_FLIGHT = 4

class Meter {
  readonly #latenciesMs: number[] = []
  readonly #startedMs = performance.now()
  readonly endMs: number
  failed = 0

  constructor(ms: number) {
    this.endMs = this.#startedMs + ms
  }

  ended(sinceMs: number): void {
    this.#latenciesMs.push(performance.now() - sinceMs)
  }

  get over(): boolean {
    return performance.now() >= this.endMs
  }

  result(): Load {
    const sorted = Float64Array.from(this.#latenciesMs).toSorted()
    const at = (share: number): number => sorted[Math.floor(sorted.length * share)] ?? Number.NaN
    const seconds = (performance.now() - this.#startedMs) / 1000
    return {
      callsPerSecond: sorted.length / seconds,
      p50Ms: at(0.5),
      p99Ms: at(0.99),
      failed: this.failed,
    }
  }
}

/** Confirmable requests from 8 ports, 4 outstanding each; what is not answered within a second counts as failed. */
export async function coapLoad(port: number, ms: number): Promise<Load> {
  const meter = new Meter(ms)
  await Promise.all(Array.from({ length: CONNECTIONS }, () => coapPeer(port, meter)))
  return meter.result()
}

async function coapPeer(port: number, meter: Meter): Promise<void> {
  const socket = createSocket({
    type: 'udp4',
    lookup: (address, _options, done) => done(null, address, 4),
  })
  const listening = once(socket, 'listening')
  socket.bind(0)
  await listening
  const template = generate({
    code: 'POST',
    confirmable: true,
    messageId: 0,
    token: Buffer.alloc(2),
    payload: BODY,
    options: [{ name: 'Uri-Path', value: Buffer.from('echo') }],
  })
  const sentMs = new Map<number, number>()
  let messageId = Math.floor(Math.random() * 0xffff)
  const next = (): void => {
    messageId = (messageId + 1) & 0xffff
    const datagram = Buffer.from(template)
    datagram.writeUInt16BE(messageId, 2)
    sentMs.set(messageId, performance.now())
    socket.send(datagram, port, '127.0.0.1')
  }
  socket.on('message', (datagram) => {
    const id = datagram.readUInt16BE(2)
    const since = sentMs.get(id)
    if (since === undefined) return
    sentMs.delete(id)
    if (datagram[1] === 0x45) meter.ended(since)
    else meter.failed++
    if (!meter.over) next()
  })
  for (let n = 0; n < IN_FLIGHT; n++) next()
  await untilOver(meter, sentMs, next)
  meter.failed += sentMs.size
  await closed(socket)
}

/** Starts lost calls anew, waits for the end, and a moment for the last answers. */
async function untilOver(
  meter: Meter,
  sentMs: Map<number, number>,
  next: () => void,
): Promise<void> {
  while (!meter.over) {
    await new Promise((resolve) => setTimeout(resolve, 100))
    for (const [id, since] of sentMs) {
      if (performance.now() - since < 1000) continue
      sentMs.delete(id)
      meter.failed++
      next()
    }
  }
  await new Promise((resolve) => setTimeout(resolve, 50))
}

async function closed(socket: Socket): Promise<void> {
  const close = once(socket, 'close')
  socket.close()
  await close
}

const METHODS = {
  tinyfaas: {
    path: '/openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request',
    message: toBinary(
      DataSchema,
      create(DataSchema, { functionIdentifier: 'echo', data: BODY.toString() }),
    ),
  },
  shoal: {
    path: '/shoal.v1.Functions/Invoke',
    message: toBinary(
      InvokeRequestSchema,
      create(InvokeRequestSchema, { function: 'echo', payload: BODY }),
    ),
  },
} as const

/** Unary calls over 8 connections, 4 streams each, with as little client as there can be. */
export async function grpcLoad(
  port: number,
  ms: number,
  service: keyof typeof METHODS,
): Promise<Load> {
  const meter = new Meter(ms)
  const { path, message } = METHODS[service]
  const frame = Buffer.alloc(5 + message.length)
  frame.writeUInt32BE(message.length, 1)
  frame.set(message, 5)
  await Promise.all(
    Array.from({ length: CONNECTIONS }, async () => {
      const session = connect(`http://127.0.0.1:${port}`)
      const lanes = Array.from({ length: IN_FLIGHT }, async () => {
        while (!meter.over) await grpcCall(session, path, frame, meter)
      })
      await Promise.all(lanes)
      session.close()
    }),
  )
  return meter.result()
}

function grpcCall(
  session: ClientHttp2Session,
  path: string,
  frame: Buffer,
  meter: Meter,
): Promise<void> {
  return new Promise((resolve) => {
    const since = performance.now()
    let ok = false
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
    })
    stream.on('trailers', (trailers) => (ok = trailers['grpc-status'] === '0'))
    stream.on('error', () => undefined)
    stream.on('close', () => {
      if (ok) meter.ended(since)
      else meter.failed++
      resolve()
    })
    stream.resume()
    stream.end(frame)
  })
}
