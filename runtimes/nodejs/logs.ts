import type { Call } from './call.ts'
import { currentCall } from './current-call.ts'
import { cut, LEVEL, LIMIT, TYPE } from './protocol.ts'
import type { FrameWriter } from './writer.ts'

interface Line {
  id: number
  readonly level: number
  readonly text: string
}

/** Partial lines that belong to no call are sent when nothing has been added to them for this long. */
const PARTIAL_MS = 100

/**
 * Log lines on their way to the agent: straight into the writer while the agent takes them, else in a bounded queue that drops
 * its oldest lines and says so.
 */
export class Logs {
  #writer: FrameWriter | undefined
  #queue: Line[] = []
  #queueBytes = 0
  #dropped = 0
  #partialTimer: NodeJS.Timeout | undefined
  /** Written outside any call, without a line feed yet: stdout, stderr. */
  readonly #partial: [string, string] = ['', '']

  /** Sends what waits, and from now on straight to `writer`; undefined: the connection is gone, lines wait. */
  attach(writer: FrameWriter | undefined): void {
    this.#writer = writer
    this.drain()
  }

  /** Text of one or more lines, each of which goes by itself. */
  lines(id: number, level: number, text: string): void {
    for (const line of text.split(/\r?\n/)) this.#line(id, level, line)
  }

  /** Sends what waits, as far as the agent takes it. */
  drain(): void {
    if (this.#queue.length === 0) return
    if (this.#dropped > 0 && this.#room()) {
      this.#send(0, LEVEL.WARN, `[${this.#dropped} log lines dropped]`)
      this.#dropped = 0
    }
    let sent = 0
    for (const { id, level, text } of this.#queue) {
      if (!this.#room()) break
      this.#send(id, level, text)
      this.#queueBytes -= text.length
      sent += 1
    }
    this.#queue.splice(0, sent)
  }

  /** Text of a stream (0 stdout, 1 stderr), cut into lines for the call that wrote it. */
  text(stream: 0 | 1, text: string, level: number): void {
    const call = currentCall.getStore()?.call
    const id = call?.id ?? 0
    const partial = call?.partial ?? this.#partial
    let rest = partial[stream] + text
    let from = 0
    for (let at = rest.indexOf('\n'); at >= 0; at = rest.indexOf('\n', from)) {
      const end = at > from && rest[at - 1] === '\r' ? at - 1 : at
      this.#line(id, level, rest.slice(from, end))
      from = at + 1
    }
    rest = from === 0 ? rest : rest.slice(from)
    if (rest.length > LIMIT.logLineBytes) {
      this.#line(id, level, rest)
      rest = ''
    }
    partial[stream] = rest
    if (call === undefined && rest !== '') this.#partialSoon()
  }

  /** Sends the unfinished lines of a call that ends. */
  flushPartialLines(call: Call): void {
    const { partial } = call
    if (partial[0] !== '') this.#line(call.id, LEVEL.INFO, partial[0])
    if (partial[1] !== '') this.#line(call.id, LEVEL.ERROR, partial[1])
    partial[0] = ''
    partial[1] = ''
  }

  /** The call has ended and its id may be another's: of its lines that still wait nobody knows whose they are. */
  disown(id: number): void {
    for (const line of this.#queue) if (line.id === id) line.id = 0
  }

  /** Sends the unfinished lines that belong to no call. */
  flushOwnPartialLines(): void {
    clearTimeout(this.#partialTimer)
    this.#partialTimer = undefined
    const [out, err] = this.#partial
    this.#partial[0] = ''
    this.#partial[1] = ''
    if (out !== '') this.#line(0, LEVEL.INFO, out)
    if (err !== '') this.#line(0, LEVEL.ERROR, err)
  }

  #partialSoon(): void {
    this.#partialTimer ??= setTimeout(() => this.flushOwnPartialLines(), PARTIAL_MS).unref()
  }

  #line(id: number, level: number, text: string): void {
    const short = cut(text, LIMIT.logLineBytes)
    if (this.#queue.length === 0 && this.#room()) this.#send(id, level, short)
    else this.#keep(id, level, short)
  }

  #room(): boolean {
    return this.#writer !== undefined && this.#writer.backlogBytes < LIMIT.logBytes
  }

  #send(id: number, level: number, text: string): void {
    this.#writer?.text(TYPE.LOG, id, level, text)
  }

  #keep(id: number, level: number, text: string): void {
    this.#queue.push({ id, level, text })
    this.#queueBytes += text.length
    while (this.#queue.length > LIMIT.logLines || this.#queueBytes > LIMIT.logBytes) {
      this.#queueBytes -= this.#queue.shift()?.text.length ?? 0
      this.#dropped += 1
    }
  }
}

type Write = typeof process.stdout.write

/** Makes log lines of all that the process writes to stdout and stderr, by the console or straight. */
export function captureOutput(logs: Logs): void {
  let level: number | undefined
  const capture = (stream: 0 | 1): Write => {
    const write = (
      chunk: string | Uint8Array,
      encoding?: BufferEncoding | ((error?: Error | null) => void),
      done?: (error?: Error | null) => void,
    ): boolean => {
      const text =
        typeof chunk === 'string'
          ? chunk
          : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength).toString('utf8')
      logs.text(stream, text, level ?? (stream === 0 ? LEVEL.INFO : LEVEL.ERROR))
      const after = typeof encoding === 'function' ? encoding : done
      if (after !== undefined) process.nextTick(after)
      return true
    }
    return write
  }
  process.stdout.write = capture(0)
  process.stderr.write = capture(1)
  for (const [name, own] of [
    ['debug', LEVEL.DEBUG],
    ['warn', LEVEL.WARN],
  ] as const) {
    const original = console[name].bind(console)
    console[name] = (...values: unknown[]): void => {
      level = own
      try {
        original(...values)
      } finally {
        level = undefined
      }
    }
  }
}
