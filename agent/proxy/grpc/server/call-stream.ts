import type { HeaderList } from '#agent/invoke/index.ts'

/**
 * What has become of a message: `full` is taken, too, but `drained` is to be waited for before the next; `refused` is not sent, since
 * it would have to wait for the peer and there is no memory left for that.
 */
export type Written = 'taken' | 'full' | 'refused'

/** The HTTP/2 stream of one call, as the call sees it. After an answer, an end or a refusal nothing more may be sent. */
export interface CallStream {
  /** All of the request has come. */
  readonly remoteEnded: boolean
  /** Sends the header of an answer. */
  open(): void
  /** Sends a message, its prefix before it. */
  write(frame: Buffer): Written
  /** The answer's end. */
  end(trailers: HeaderList): void
  /** `open`, `write` and `end` with status OK in one. @returns false, and nothing is sent, where `write` refuses */
  answer(frame: Buffer): boolean
  /** An answer that is nothing but a header; what the caller still sends is not wanted. */
  refuse(header: HeaderList): void
  /** Takes no more of the request, nor its end, until `resume`. */
  pause(): void
  resume(): void
}

/** What a stream tells its call. */
export interface CallStreamListener {
  data(chunk: Buffer): void
  /** The request is over. */
  end(): void
  /** There is room again after a `write` that said `full`. */
  drained(): void
  /** The stream is gone, for whatever reason. Last of all, exactly once. */
  closed(): void
}
