import type { HeaderList } from '#agent/invoke/index.ts'

/** The HTTP/2 stream of one call, as the call sees it. After an answer, an end or a refusal nothing more may be sent. */
export interface CallStream {
  /** All of the request has come. */
  readonly remoteEnded: boolean
  /** Sends the header of an answer. */
  open(): void
  /** Sends a message, its prefix before it; false: wait for `drained` before the next. */
  write(frame: Buffer): boolean
  /** The answer's end. */
  end(trailers: HeaderList): void
  /** `open`, `write` and `end` with status OK in one. */
  answer(frame: Buffer): void
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
  /** There is room again after a `write` that said false. */
  drained(): void
  /** The stream is gone, for whatever reason. Last of all, exactly once. */
  closed(): void
}
