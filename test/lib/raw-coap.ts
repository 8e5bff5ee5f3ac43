import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { generate, type Packet, parse, type ParsedPacket } from 'coap-packet'

const ANSWER_MS = 30_000

/** One UDP socket that sends exactly what a test wants, read and written by a codec that is not ours. */
export class RawCoap implements AsyncDisposable {
  readonly #socket: Socket
  readonly #port: number
  readonly #host: string
  readonly #inbox: Buffer[] = []
  #messageId = Math.floor(Math.random() * 0xffff)
  #wake: (() => void) | undefined

  private constructor(socket: Socket, port: number, host: string) {
    this.#socket = socket
    this.#port = port
    this.#host = host
    socket.on('message', (datagram) => {
      this.#inbox.push(datagram)
      this.#wake?.()
    })
  }

  static async open(port: number, host = '127.0.0.1'): Promise<RawCoap> {
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4')
    // Of this address, so that it is another peer than one of another address.
    socket.bind(0, host)
    await once(socket, 'listening')
    return new RawCoap(socket, port, host)
  }

  nextMessageId(): number {
    this.#messageId = (this.#messageId + 1) & 0xffff
    return this.#messageId
  }

  sendRaw(datagram: Buffer): void {
    this.#socket.send(datagram, this.#port, this.#host)
  }

  /** @returns the message id */
  send(packet: Packet): number {
    const messageId = packet.messageId ?? this.nextMessageId()
    const token = packet.token ?? Buffer.from([messageId & 0xff, messageId >> 8])
    this.sendRaw(generate({ ...packet, messageId, token }, 65_507))
    return messageId
  }

  /** The next datagram as it came. */
  async receiveRaw(timeoutMs = ANSWER_MS): Promise<Buffer> {
    const deadline = Date.now() + timeoutMs
    for (;;) {
      const datagram = this.#inbox.shift()
      if (datagram !== undefined) return datagram
      const leftMs = deadline - Date.now()
      if (leftMs <= 0) throw new Error(`no datagram within ${timeoutMs} ms`)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }

  async receive(timeoutMs = ANSWER_MS): Promise<ParsedPacket> {
    return parse(await this.receiveRaw(timeoutMs))
  }

  /** Sends a confirmable request and returns its response: in the ACK, or after an empty one, and then acknowledged. */
  async ask(packet: Packet): Promise<ParsedPacket> {
    this.send({ confirmable: true, ...packet })
    let answer = await this.receive()
    while (answer.ack && answer.code === '0.00') answer = await this.receive()
    if (answer.confirmable) {
      const { messageId } = answer
      this.send({ ack: true, code: '0.00', messageId, token: Buffer.alloc(0) })
    }
    return answer
  }

  /** Fails when anything comes within the time. */
  async silence(ms: number): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, ms))
    const datagram = this.#inbox.shift()
    if (datagram !== undefined) throw new Error(`not silent: ${datagram.toString('hex')}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close()
    await once(this.#socket, 'close')
  }
}

type Options = NonNullable<Packet['options']>

/** Uri-Path options of a path. */
export function uriPath(path: string): Options {
  return path.split('/').map((segment) => ({ name: 'Uri-Path', value: Buffer.from(segment) }))
}

/** The value of an option as a number; `undefined` when it is absent. */
export function optionNumber(packet: ParsedPacket, name: string): number | undefined {
  const value = optionValue(packet, name)
  if (value === undefined) return undefined
  return value.length === 0 ? 0 : value.readUIntBE(0, value.length)
}

export function optionValue(packet: ParsedPacket, name: string): Buffer | undefined {
  return packet.options.find((option) => String(option.name) === name)?.value
}

/** A Block1 or Block2 option's value. */
export function block(num: number, more: boolean, szx: number): Buffer {
  const bits = num * 16 + (more ? 8 : 0) + szx
  const value = Buffer.alloc(3)
  value.writeUIntBE(bits, 0, 3)
  return value
}
