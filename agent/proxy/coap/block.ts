import { type CoapOption, uintOf, uintOption } from './codec.ts'

/** A Block1 or Block2 option (RFC 7959 section 2.2). */
export interface Block {
  readonly num: number
  readonly more: boolean
  /** Size exponent: a block has 2^(szx + 4) bytes; 0 to 6. */
  readonly szx: number
}

/** The largest block: 1,024 bytes. */
export const SZX_MAX = 6

export const blockBytes = (szx: number): number => 1 << (szx + 4)

/** `undefined` for the reserved size exponent 7. */
export function readBlock(value: Buffer): Block | undefined {
  const bits = uintOf(value)
  const szx = bits & 7
  return szx > SZX_MAX ? undefined : { num: bits >>> 4, more: (bits & 8) !== 0, szx }
}

export function blockOption(number: number, { num, more, szx }: Block): CoapOption {
  return uintOption(number, num * 16 + (more ? 8 : 0) + szx)
}
