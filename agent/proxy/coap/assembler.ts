import { Fault } from '#shared/fault.ts'
import { answerText, type Answer, CODE } from './answer.ts'
import { type Block, blockBytes, blockOption } from './block.ts'
import { BoundedMap } from './bounded-map.ts'
import { OPTION } from './options.ts'

interface Assembly {
  /** Doubles as blocks come; a few bytes of a block must not cost a buffer of their own. */
  buffer: Buffer
  bytes: number
}

export interface AssemblerOptions {
  readonly bodyBytesMax: number
  /** All unfinished bodies together. */
  readonly bytesMax: number
  readonly lifetimeMs: number
  readonly nowMs: () => number
}

/** Bookkeeping of one entry beside its buffer. */
const ENTRY_BYTES = 512
const ASSEMBLIES_PER_PEER_MAX = 4

/** Puts request bodies together that come in blocks (Block1, RFC 7959 section 2.5). */
export class Assembler {
  readonly #options: AssemblerOptions
  readonly #assemblies: BoundedMap<Assembly>

  constructor(options: AssemblerOptions) {
    this.#options = options
    this.#assemblies = new BoundedMap({
      entriesMax: 4096,
      // Bodies of so many bytes, and what is noted of one.
      bytesMax: options.bytesMax + ENTRY_BYTES,
      entriesPerPeerMax: ASSEMBLIES_PER_PEER_MAX,
      lifetimeMs: options.lifetimeMs,
      nowMs: options.nowMs,
    })
  }

  get bytes(): number {
    return this.#assemblies.bytes
  }

  /**
   * Takes one block. A `Buffer` is the whole body, an `Answer` what to tell the caller meanwhile (2.31, or why not: 4.00, 4.08).
   *
   * @throws Fault `BODY_TOO_LARGE`
   */
  add(
    peer: string,
    transfer: string,
    block: Block,
    size1: number,
    payload: Buffer,
  ): Buffer | Answer {
    const { bodyBytesMax } = this.#options
    const key = `${peer} ${transfer}`
    const size = blockBytes(block.szx)
    const offset = block.num * size
    if (block.more && payload.length !== size) {
      return answerText(CODE.badRequest, `a block of ${payload.length} bytes, not ${size}`)
    }
    if (offset + payload.length > bodyBytesMax || (block.num === 0 && size1 > bodyBytesMax)) {
      this.#assemblies.delete(key)
      throw new Fault('BODY_TOO_LARGE', `the body is larger than ${bodyBytesMax} bytes`, {
        bytesMax: bodyBytesMax,
      })
    }
    if (block.num === 0) {
      this.#assemblies.delete(key)
      if (!block.more) return payload
      this.#assemblies.set(key, peer, { buffer: Buffer.alloc(0), bytes: 0 }, ENTRY_BYTES)
    }
    const assembly = this.#assemblies.get(key)
    if (assembly === undefined || assembly.bytes !== offset) {
      return answerText(CODE.incomplete, 'blocks are missing; start again with block 0')
    }
    append(assembly, payload, bodyBytesMax)
    if (!block.more) {
      this.#assemblies.delete(key)
      return assembly.buffer.subarray(0, assembly.bytes)
    }
    this.#assemblies.touch(key)
    this.#assemblies.resize(key, ENTRY_BYTES + assembly.buffer.length)
    return {
      code: CODE.continue,
      options: [blockOption(OPTION.block1, { ...block, more: true })],
      payload: Buffer.alloc(0),
    }
  }

  sweep(): void {
    this.#assemblies.sweep()
  }
}

function append(assembly: Assembly, payload: Buffer, bodyBytesMax: number): void {
  const needed = assembly.bytes + payload.length
  if (needed > assembly.buffer.length) {
    const bytes = Math.min(Math.max(2048, assembly.buffer.length * 2, needed), bodyBytesMax)
    const grown = Buffer.allocUnsafeSlow(bytes)
    assembly.buffer.copy(grown, 0, 0, assembly.bytes)
    assembly.buffer = grown
  }
  payload.copy(assembly.buffer, assembly.bytes)
  assembly.bytes = needed
}
