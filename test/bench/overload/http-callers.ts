import { connect, type Socket } from 'node:net'
import type { Ending, Tally } from './tally.ts'

/**
 * Callers on keep-alive connections that cost next to nothing: one write of a ready request, and three looks at the answer. A
 * generator that is busy itself would measure its own queue.
 */
export class HttpCallers {
  readonly #port: number
  readonly #request: Buffer
  readonly #tally: Tally
  readonly #free: Caller[] = []
  readonly #all = new Set<Caller>()
  /** Called when a caller is free again. */
  onFree: (() => void) | undefined

  constructor(port: number, fn: string, deadlineMs: number, tally: Tally) {
    this.#port = port
    this.#tally = tally
    const fields = `Host: x\r\nContent-Length: 1\r\nX-Shoal-Deadline-Ms: ${deadlineMs}`
    this.#request = Buffer.from(`POST /${fn} HTTP/1.1\r\n${fields}\r\n\r\nx`)
  }

  get running(): number {
    return this.#all.size - this.#free.length
  }

  call(): void {
    const caller = this.#free.pop() ?? this.#add()
    caller.call(this.#request)
  }

  close(): void {
    for (const caller of this.#all) caller.close()
  }

  #add(): Caller {
    const caller: Caller = new Caller(this.#port, (ending, tookMs) => {
      if (ending !== undefined) this.#tally.add(ending, tookMs)
      if (caller.open) this.#free.push(caller)
      else this.#all.delete(caller)
      this.onFree?.()
    })
    this.#all.add(caller)
    return caller
  }
}

/** @param ending - undefined: the connection ended between two calls */
type Ended = (ending: Ending | undefined, tookMs: number) => void

class Caller {
  open = true
  readonly #socket: Socket
  readonly #ended: Ended
  #answer = ''
  #startedAtMs = -1

  constructor(port: number, ended: Ended) {
    this.#ended = ended
    this.#socket = connect({ port, host: '127.0.0.1', noDelay: true })
    this.#socket.setEncoding('latin1')
    this.#socket.on('data', (text) => this.#read(String(text)))
    this.#socket.on('error', () => undefined)
    this.#socket.on('close', () => {
      if (!this.open) return
      this.open = false
      if (this.#startedAtMs !== -1) this.#end({ kind: 'other' })
    })
  }

  call(request: Buffer): void {
    this.#startedAtMs = performance.now()
    this.#socket.write(request)
  }

  close(): void {
    this.open = false
    this.#socket.destroy()
  }

  #read(text: string): void {
    this.#answer += text
    const head = this.#answer.indexOf('\r\n\r\n')
    if (head === -1) return
    const length = /\r\ncontent-length: (\d+)/i.exec(this.#answer)?.[1]
    if (this.#answer.length < head + 4 + Number(length ?? 0)) return
    const status = this.#answer.slice(9, 12)
    const hint = /\r\nretry-after: [1-9]/i.test(this.#answer)
    this.#answer = ''
    if (status === '200') this.#end({ kind: 'answered' })
    else if (status === '429') this.#end({ kind: 'refused', hint })
    else this.#end({ kind: 'other' })
  }

  #end(ending: Ending): void {
    const tookMs = performance.now() - this.#startedAtMs
    this.#startedAtMs = -1
    this.#ended(ending, tookMs)
  }
}
