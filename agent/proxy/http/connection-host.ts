import type { BodyBudget } from '#agent/sockets/index.ts'
import type { CallConnection, HttpCall } from './call.ts'
import type { RequestFields } from './fields.ts'
import type { Framing } from './framing.ts'
import type { ParserPool, RequestHead } from './request-parser.ts'
import type { Tarpit } from './tarpit.ts'

export interface ConnectionTimes {
  readonly headerTimeoutMs: number
  readonly requestTimeoutMs: number
  readonly idleTimeoutMs: number
}

/** What a connection needs of its proxy. */
export interface ConnectionHost {
  readonly parsers: ParserPool
  readonly times: ConnectionTimes
  readonly tarpit: Tarpit
  /** Of a request's body, and of one that is thrown away. */
  readonly bodyBytesMax: number
  readonly budget: BodyBudget
  /** Where a read goes that may begin a request. */
  readonly startBuffer: Buffer
  /** The proxy is stopping: every answer is its connection's last. */
  readonly closing: boolean
  /** Monotonic, and coarse: due times count from here and are looked at as seldom as this changes. */
  readonly nowMs: number
  /** The head of a request has come; the call has not been started yet. */
  opened(
    connection: CallConnection,
    head: RequestHead,
    fields: RequestFields,
    framing: Framing,
  ): HttpCall
  /** The call starts; it may end before this returns. */
  serve(call: HttpCall): void
  /** A call has had its answer, or its caller has gone. Once per call. */
  ended(): void
}
