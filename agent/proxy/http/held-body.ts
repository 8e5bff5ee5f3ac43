import { blocks } from '#agent/sockets/index.ts'
import type { BodySource, BodyTarget } from './request-body.ts'

/** A body that is not to be received yet: keeps what has been read already, and lets no more be read. */
export class HeldBody implements BodyTarget {
  readonly #source: BodySource
  #target: BodyTarget | undefined
  #chunks: Buffer[] = []
  #ended = false

  constructor(source: BodySource) {
    this.#source = source
  }

  /** Now it goes there. */
  open(target: BodyTarget): void {
    this.#target = target
    const chunks = this.#chunks
    this.#chunks = []
    for (const chunk of chunks) target.bytes(chunk, 0, chunk.length)
    if (this.#ended) target.end()
    else this.#source.setFlowing(true)
  }

  room(): Buffer | undefined {
    return this.#target?.room()
  }

  filled(bytes: number): void {
    this.#target?.filled(bytes)
  }

  bytes(buffer: Buffer, start: number, end: number): void {
    if (this.#target !== undefined) return this.#target.bytes(buffer, start, end)
    blocks.tookNew(end - start)
    this.#chunks.push(Buffer.from(buffer.subarray(start, end)))
    this.#source.setFlowing(false)
  }

  end(): void {
    this.#ended = true
    this.#target?.end()
  }
}
