import type { CoapOption } from './codec.ts'
import { owned } from './owned.ts'

/** Options that came before. Each message with the same ones has this very object. */
export interface KnownRun {
  /** As they came. */
  readonly bytes: Buffer
  /** Views of `bytes`. */
  readonly options: readonly CoapOption[]
}

interface Known extends KnownRun {
  readonly hash: number
  readonly code: number
}

const BYTES_MAX = 64
/** A power of two. */
const PLACES = 64
const PAYLOAD_MARKER = 0xff
const NO_BYTES = Buffer.alloc(0)

/**
 * Options of requests that came before, found by their bytes: a device asks the same again and again. What has been made of them once
 * can be found by their `KnownRun`.
 *
 * Of at most 64 bytes, and at most 64 of them. Those that share a place drive each other out, but only ones that came twice running
 * get there: a peer that never asks the same costs a look each time, and no copy.
 */
export class KnownOptions {
  readonly #places: Known[] = Array.from({ length: PLACES }, () => NONE)
  readonly #missed = new Int32Array(PLACES)

  /** Those that start at `start` and end with the message or before its payload: exactly what reading them would give. */
  find(code: number, datagram: Buffer, start: number): KnownRun | undefined {
    const hash = hashOf(code, datagram, start)
    const known = this.#places[hash & (PLACES - 1)] ?? NONE
    if (known.hash !== hash || known.code !== code) return undefined
    const { bytes } = known
    const end = start + bytes.length
    // Else these bytes are the first of more options, or the message is none.
    if (
      end !== datagram.length &&
      !(datagram[end] === PAYLOAD_MARKER && end + 1 < datagram.length)
    ) {
      return undefined
    }
    for (let at = 0; at < bytes.length; at++) {
      if (bytes[at] !== datagram[start + at]) return undefined
    }
    return known
  }

  /**
   * Remembers options that `find` has not found, if they are worth it.
   *
   * @param read - reads the options of a copy
   * @returns what `find` gives from now on
   */
  learn(
    code: number,
    datagram: Buffer,
    start: number,
    end: number,
    read: (bytes: Buffer) => readonly CoapOption[],
  ): KnownRun | undefined {
    if (end - start > BYTES_MAX) return undefined
    const hash = hashOf(code, datagram, start)
    const place = hash & (PLACES - 1)
    // Of all bytes: those with one that looks like a payload marker share their place.
    const missed = fnv(hash, datagram, start, end)
    if (this.#missed[place] !== missed) {
      this.#missed[place] = missed
      return undefined
    }
    const bytes = owned(Buffer.from(datagram.subarray(start, end)))
    const known = { hash, code, bytes, options: read(bytes) }
    this.#places[place] = known
    return known
  }
}

const NONE: Known = { hash: 0, code: -1, bytes: NO_BYTES, options: [] }

/**
 * Over what are the options in all likelihood: up to the first byte that looks like a payload marker. The same for the same
 * options, whatever comes behind them.
 */
function hashOf(code: number, datagram: Buffer, start: number): number {
  const most = Math.min(datagram.length, start + BYTES_MAX)
  let end = start
  while (end < most && datagram[end] !== PAYLOAD_MARKER) end++
  return fnv(0x811c_9dc5 ^ code, datagram, start, end)
}

/** FNV-1a, mixed once more: the low bits alone tell the place. */
function fnv(hash: number, bytes: Buffer, start: number, end: number): number {
  for (let at = start; at < end; at++) hash = Math.imul(hash ^ (bytes[at] ?? 0), 0x0100_0193)
  return hash ^ (hash >>> 15)
}
