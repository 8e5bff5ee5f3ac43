import { finished } from 'node:stream/promises'
import { LOG_KEYS } from '#shared/log-keys.ts'
import { Fault } from '#shared/fault.ts'
import { leanFault } from './lane/index.ts'
import type { Lane } from './lane/index.ts'
import type { Invocation, Result } from './model.ts'

/** Just what is used of a logger; pino's fits. */
export interface InvokeLog {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
}

export interface BackgroundOptions {
  readonly log: InvokeLog
  readonly callsMax: number
  readonly bytesMax: number
}

/** Calls that nobody waits for; bounded by number and by the bytes of their bodies. */
export class Background {
  readonly #options: BackgroundOptions
  #calls = 0
  #bytes = 0

  constructor(options: BackgroundOptions) {
    this.#options = options
  }

  /**
   * Reads the body to its end, so that the caller may go, and starts the call.
   *
   * @throws Fault `FUNCTION_SATURATED`, `BODY_TOO_LARGE`, `CALLER_GONE`; and what the lane refuses it with at once
   */
  async accept(lane: Lane, invocation: Invocation): Promise<void> {
    const { callsMax } = this.#options
    if (this.#calls >= callsMax) {
      throw this.#full(`${callsMax} calls run in the background already`)
    }
    this.#calls += 1
    let bytes = 0
    try {
      const body = await this.#collect(invocation.body, lane.bodyBytesMax)
      bytes = body.length
      this.#start(lane, { ...invocation, body }, bytes)
    } catch (error) {
      this.#give(bytes)
      throw error
    }
  }

  async #collect(body: Invocation['body'], bodyBytesMax: number): Promise<Buffer> {
    if (Buffer.isBuffer(body)) {
      this.#take(body.length)
      return body
    }
    const chunks: Buffer[] = []
    let bytes = 0
    try {
      for await (const chunk of body as AsyncIterable<Buffer>) {
        this.#take(chunk.length)
        bytes += chunk.length
        chunks.push(chunk)
        if (bytes > bodyBytesMax) {
          throw new Fault('BODY_TOO_LARGE', `The body has more than ${bodyBytesMax} bytes`)
        }
      }
    } catch (error) {
      this.#bytes -= bytes
      if (error instanceof Fault) throw error
      throw new Fault('CALLER_GONE', 'The body of the request broke off', {}, { cause: error })
    }
    return Buffer.concat(chunks)
  }

  #take(bytes: number): void {
    const { bytesMax } = this.#options
    if (this.#bytes + bytes > bytesMax) {
      throw this.#full(`bodies of calls in the background have ${bytesMax} bytes already`)
    }
    this.#bytes += bytes
  }

  /** Throws what the lane says before this returns; what it says later is logged and counted. */
  #start(lane: Lane, invocation: Invocation, bytes: number): void {
    let accepted = false
    let refusal: Fault | undefined
    const done = (outcome: Result | Fault): void => {
      this.#give(bytes)
      this.#report(lane, invocation, outcome)
    }
    lane.start(
      invocation,
      undefined,
      (result) => void finish(result, done),
      (fault) => {
        if (accepted) done(fault)
        else refusal = fault
      },
    )
    accepted = true
    if (refusal !== undefined) throw refusal
    lane.tally.calls.asyncAccepted += 1
  }

  #give(bytes: number): void {
    this.#calls -= 1
    this.#bytes -= bytes
  }

  #report(lane: Lane, invocation: Invocation, outcome: Result | Fault): void {
    const failed = outcome instanceof Fault || outcome.status >= 500
    const fields = {
      [LOG_KEYS.fn]: lane.fn,
      [LOG_KEYS.request]: invocation.requestId,
    }
    if (!failed) {
      lane.tally.calls.asyncDone += 1
      this.#options.log.info({ ...fields, status: outcome.status }, 'background call done')
      return
    }
    lane.tally.calls.asyncFailed += 1
    const why =
      outcome instanceof Fault
        ? { code: outcome.code, reason: outcome.message }
        : { status: outcome.status }
    this.#options.log.warn({ ...fields, ...why }, 'background call failed')
  }

  #full(message: string): Fault {
    return leanFault('FUNCTION_SATURATED', message, { retryAfterMs: 1_000 })
  }
}

/** Reads an answer that nobody wants to its end; a body that breaks is a failure like any other. */
async function finish(result: Result, done: (outcome: Result | Fault) => void): Promise<void> {
  try {
    if (!Buffer.isBuffer(result.body)) await finished(result.body.resume())
    done(result)
  } catch (error) {
    done(Fault.from(error))
  }
}
