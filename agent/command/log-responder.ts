import type { Msg } from '@nats-io/transport-node'
import { lazyValidator } from '#shared/lazy-validator.ts'
import type { LogLine } from '#shared/schemas/health.ts'
import { LogsRequest, type LogsReply } from '#shared/schemas/wire.ts'
import { subjects } from '#shared/subjects.ts'
import type { CommandLog } from './log.ts'
import type { LogBook } from './log-book.ts'

const REPLY_BYTES_MAX = 512 * 1024
const PUBLISH_EVERY_MS = 100
const WAITING_BYTES_MAX = 256 * 1024
const FOLLOWED_MAX = 100

const validator = lazyValidator(LogsRequest)

export interface LogResponderOptions {
  readonly node: string
  readonly logs: LogBook
  readonly publish: (subject: string, payload: string) => boolean
  readonly log: CommandLog
}

interface Followed {
  untilMs: number
  /** Lines as JSON. */
  waiting: string[]
  waitingBytes: number
}

/**
 * Answers requests for log lines and, while a lease runs, publishes new ones in batches. A function that writes more than a batch
 * holds loses its oldest lines here (they are in the files): following is for eyes.
 */
export class LogResponder {
  readonly #options: LogResponderOptions
  readonly #followed = new Map<string, Followed>()
  readonly #listening: Disposable
  #timer: NodeJS.Timeout | undefined

  constructor(options: LogResponderOptions) {
    this.#options = options
    this.#listening = options.logs.onLine((line) => this.#take(line))
  }

  handle(message: Msg): void {
    this.#answer(message).catch((error: unknown) => {
      this.#options.log.warn({ err: error }, 'logs not answered')
    })
  }

  close(): void {
    this.#listening[Symbol.dispose]()
    clearTimeout(this.#timer)
    this.#publish()
    this.#followed.clear()
  }

  async #answer(message: Msg): Promise<void> {
    const request = parse(message)
    let reply: LogsReply = { lines: [], dropped: 0 }
    if (request !== undefined) {
      const { fn, tail, followMs } = request
      // Before the tail is read: a line in between comes twice rather than never.
      if (followMs > 0) this.#follow(fn, followMs)
      if (tail > 0) reply = await this.#options.logs.tail(fn, tail, REPLY_BYTES_MAX)
    }
    if (message.reply !== undefined) message.respond(JSON.stringify(reply))
  }

  #follow(fn: string, followMs: number): void {
    const untilMs = performance.now() + followMs
    this.#forgetOver()
    const followed = this.#followed.get(fn)
    if (followed !== undefined) followed.untilMs = Math.max(followed.untilMs, untilMs)
    else if (this.#followed.size < FOLLOWED_MAX) {
      this.#followed.set(fn, { untilMs, waiting: [], waitingBytes: 0 })
    }
  }

  #take(line: LogLine): void {
    const followed = this.#followed.get(line.fn)
    if (followed === undefined) return
    if (followed.untilMs < performance.now()) {
      this.#followed.delete(line.fn)
      return
    }
    const text = JSON.stringify(line)
    followed.waiting.push(text)
    followed.waitingBytes += Buffer.byteLength(text)
    while (followed.waitingBytes > WAITING_BYTES_MAX) {
      followed.waitingBytes -= Buffer.byteLength(followed.waiting.shift() ?? '')
    }
    this.#timer ??= setTimeout(() => this.#publish(), PUBLISH_EVERY_MS)
  }

  #publish(): void {
    this.#timer = undefined
    const { node, publish } = this.#options
    for (const [fn, followed] of this.#followed) {
      if (followed.waiting.length > 0) {
        publish(subjects.log(node, fn), `[${followed.waiting.join(',')}]`)
        followed.waiting = []
        followed.waitingBytes = 0
      }
    }
    this.#forgetOver()
  }

  /** Those that write nothing as well: they would keep others from being followed. */
  #forgetOver(): void {
    const nowMs = performance.now()
    for (const [fn, { untilMs }] of this.#followed) {
      if (untilMs < nowMs) this.#followed.delete(fn)
    }
  }
}

function parse(message: Msg): LogsRequest | undefined {
  try {
    const request: unknown = message.json()
    return validator.Check(request) ? request : undefined
  } catch {
    return undefined
  }
}
