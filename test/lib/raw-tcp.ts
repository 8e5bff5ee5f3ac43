import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

/** One TCP connection that speaks exactly what a test writes. */
export class RawTcp {
  readonly socket: Socket
  text = ''
  ended = false

  private constructor(socket: Socket) {
    this.socket = socket
    socket.setEncoding('latin1')
    socket.on('data', (chunk) => (this.text += String(chunk)))
    socket.on('close', () => (this.ended = true))
    // A reset is an end like any other here: tests look at what came before it.
    socket.on('error', () => undefined)
  }

  static async connect(port: number, host = '127.0.0.1'): Promise<RawTcp> {
    const socket = connect({ port, host })
    const raw = new RawTcp(socket)
    await once(socket, 'connect')
    return raw
  }

  write(text: string | Buffer): void {
    this.socket.write(text)
  }

  /** Waits until what came matches, or fails showing what came. */
  async until(pattern: RegExp, timeoutMs = 30_000): Promise<string> {
    const deadline = Date.now() + timeoutMs
    while (!pattern.test(this.text)) {
      if (Date.now() > deadline || this.ended) {
        if (pattern.test(this.text)) break
        throw new Error(`${String(pattern)} did not come, but: ${JSON.stringify(this.text)}`)
      }
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    return this.text
  }

  /** Everything up to the end of the connection. */
  async rest(timeoutMs = 30_000): Promise<string> {
    const deadline = Date.now() + timeoutMs
    while (!this.ended) {
      if (Date.now() > deadline) throw new Error(`still open, after: ${JSON.stringify(this.text)}`)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    return this.text
  }

  [Symbol.dispose](): void {
    this.socket.destroy()
  }
}
