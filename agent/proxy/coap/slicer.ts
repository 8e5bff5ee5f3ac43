import { type Answer, answerText, CODE } from './answer.ts'
import { type Block, blockBytes, blockOption, SZX_MAX } from './block.ts'
import { BoundedMap } from './bounded-map.ts'
import { uintOption } from './codec.ts'
import { OPTION } from './options.ts'
import { ownedAnswer } from './owned.ts'

interface Kept {
  readonly answer: Answer
  readonly etag: Buffer | undefined
}

/** Which answers of a peer's. */
export interface Transfer {
  /** As `transferOf` has it. */
  readonly transfer: string
  /** Of a body that is part of the question; what is asked for without one is the newest of these. */
  readonly digest: string | undefined
}

export interface SlicerOptions {
  /** All kept answers together. */
  readonly bytesMax: number
  readonly lifetimeMs: number
  readonly nowMs: () => number
}

const ENTRY_BYTES = 512
const ANSWERS_PER_PEER_MAX = 8

/** One message carries the whole of it, and blocks were not asked for. */
export function fitsWhole(answer: Answer, asked: Block | undefined): boolean {
  return asked === undefined && answer.payload.length <= blockBytes(SZX_MAX)
}

/**
 * Cuts answers into blocks (Block2, RFC 7959 section 2.4) and keeps them while the caller fetches the rest: the function is
 * called once per transfer, not once per block.
 */
export class Slicer {
  readonly #kept: BoundedMap<Kept>
  /** The keys of the newest of those that have a digest, by the key without. */
  readonly #newest: BoundedMap<string>
  #tag = (Math.random() * 0x1_0000_0000) >>> 0

  constructor({ bytesMax, lifetimeMs, nowMs }: SlicerOptions) {
    // Answers of so many bytes, and what is noted of one.
    const bounds = { entriesMax: 4096, bytesMax: bytesMax + ENTRY_BYTES, lifetimeMs, nowMs }
    this.#kept = new BoundedMap({ ...bounds, entriesPerPeerMax: ANSWERS_PER_PEER_MAX })
    this.#newest = new BoundedMap({ ...bounds, entriesPerPeerMax: ANSWERS_PER_PEER_MAX })
  }

  get bytes(): number {
    return this.#kept.bytes + this.#newest.bytes
  }

  /** The first part of an answer that does not fit, or was asked for in blocks. */
  first(peer: string, named: Transfer, answer: Answer, asked: Block | undefined): Answer {
    const szx = Math.min(asked?.szx ?? SZX_MAX, SZX_MAX)
    const plain = `${peer} ${named.transfer}`
    const key = named.digest === undefined ? plain : `${plain} ${named.digest}`
    if (key === plain) this.#newest.delete(plain)
    else this.#newest.set(plain, peer, key, ENTRY_BYTES)
    if (answer.payload.length <= blockBytes(szx)) {
      this.#kept.delete(key)
      return cut({ answer, etag: undefined }, 0, szx)
    }
    const kept = { answer: ownedAnswer(answer), etag: this.#etagFor(answer) }
    this.#kept.set(key, peer, kept, answer.payload.length + ENTRY_BYTES)
    return cut(kept, 0, szx)
  }

  /** A later part of an answer that was begun before. */
  next(peer: string, { transfer, digest }: Transfer, asked: Block): Answer {
    const plain = `${peer} ${transfer}`
    const key = digest === undefined ? (this.#newest.get(plain) ?? plain) : `${plain} ${digest}`
    const kept = this.#kept.get(key)
    if (kept === undefined) {
      return answerText(CODE.incomplete, 'the answer is no longer kept; start again with block 0')
    }
    if (asked.num * blockBytes(asked.szx) >= kept.answer.payload.length) {
      return answerText(CODE.badRequest, 'no such block')
    }
    this.#kept.touch(key)
    this.#newest.touch(plain)
    return cut(kept, asked.num, asked.szx)
  }

  sweep(): void {
    this.#kept.sweep()
    this.#newest.sweep()
  }

  /** Lets a client see that two blocks are of two answers; the function's own tag does that as well. */
  #etagFor(answer: Answer): Buffer | undefined {
    if (answer.options.some(({ number }) => number === OPTION.etag)) return undefined
    const tag = Buffer.allocUnsafeSlow(4)
    this.#tag = (this.#tag + 1) >>> 0
    tag.writeUInt32BE(this.#tag)
    return tag
  }
}

function cut({ answer, etag }: Kept, num: number, szx: number): Answer {
  const { code, payload } = answer
  const from = num * blockBytes(szx)
  const to = Math.min(from + blockBytes(szx), payload.length)
  const options = [
    ...answer.options,
    blockOption(OPTION.block2, { num, more: to < payload.length, szx }),
  ]
  if (etag !== undefined) options.push({ number: OPTION.etag, value: etag })
  if (num === 0) options.push(uintOption(OPTION.size2, payload.length))
  return { code, options, payload: payload.subarray(from, to) }
}
