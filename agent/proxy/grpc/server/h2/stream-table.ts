import { CODE, ConnectionError } from './format.ts'
import { IdTable } from './id-table.ts'
import type { H2Stream } from './stream.ts'

/** The streams of a connection by id, and what must be remembered of those that are over. */
export class StreamTable {
  /** The highest id that has been taken. */
  lastId = 0
  /** No more are taken: the peer may open some all the same, and nothing is thought of it. */
  frozen = false
  readonly #streams = new IdTable<H2Stream>()
  /** Streams that we have ended before the peer had. */
  readonly #resetIds = new Set<number>()
  readonly #resetIdsMax: number

  constructor(streamsMax: number) {
    this.#resetIdsMax = streamsMax
  }

  get size(): number {
    return this.#streams.size
  }

  values(): H2Stream[] {
    return this.#streams.values()
  }

  /** True for an id that a new stream of the peer may have. */
  isNew(id: number): boolean {
    return id > this.lastId && id % 2 === 1
  }

  add(stream: H2Stream): void {
    this.#streams.add(stream)
  }

  /** `undefined` for a stream that has ended. @throws ConnectionError for one that has not begun, which nothing may concern */
  get(id: number): H2Stream | undefined {
    const stream = this.#streams.get(id)
    if (stream === undefined && (id === 0 || id % 2 === 0 || (id > this.lastId && !this.frozen))) {
      throw new ConnectionError(CODE.protocolError, `a frame of stream ${id}, which has not begun`)
    }
    return stream
  }

  /** @returns false for one that is not there any more */
  delete(stream: H2Stream, remoteEnded: boolean): boolean {
    if (!this.#streams.delete(stream.id)) return false
    if (!remoteEnded) this.keepReset(stream.id)
    return true
  }

  /** The rest of its request may still come. */
  keepReset(id: number): void {
    this.#resetIds.add(id)
    if (this.#resetIds.size <= this.#resetIdsMax) return
    const [oldest = 0] = this.#resetIds
    this.#resetIds.delete(oldest)
  }

  /** DATA or HEADERS of a stream that is over: fine as long as the peer cannot know that. @throws ConnectionError `STREAM_CLOSED` */
  late(id: number, last: boolean): void {
    if (id > this.lastId) return
    if (!this.#resetIds.has(id)) {
      throw new ConnectionError(CODE.streamClosed, `a frame of stream ${id}, which has ended`)
    }
    if (last) this.#resetIds.delete(id)
  }
}
