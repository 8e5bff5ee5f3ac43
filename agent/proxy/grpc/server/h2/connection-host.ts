import type { HeaderList } from '#agent/invoke/index.ts'
import type { BodyBudget } from '#agent/sockets/index.ts'
import type { ProxyLog } from '../../../log.ts'
import type { CallStream, CallStreamListener } from '../call-stream.ts'

/** Who gets the streams of a connection. */
export interface ConnectionHost {
  readonly log: ProxyLog
  /** For what streams hold. */
  readonly budget: BodyBudget
  /** True when no more connections are to be opened. */
  readonly closing: boolean
  /**
   * A request has begun: who listens to its stream, `undefined` when it has been answered already.
   *
   * @param header - Name, value, name, value, ...; a valid one, but not all of it when it is larger than `headerBytesMax`: then not `whole`
   */
  accept(stream: CallStream, header: HeaderList, whole: boolean): CallStreamListener | undefined
}

export interface ConnectionLimits {
  readonly streamsMax: number
  readonly headerBytesMax: number
  /** A peer is asked for a sign of life this long after its last one ... */
  readonly keepaliveMs: number
  /** ... and is gone when it gives none for this long. */
  readonly keepaliveTimeoutMs: number
  /** An answer of which the caller takes nothing for this long is given up, an unfinished one after five times as long. */
  readonly stalledMs: number
}
