import { blocks } from '#agent/sockets/index.ts'

const NO_BYTES = Buffer.alloc(0)

/** Bytes of a payload for longer than the frame lives. */
export function keep(buffer: Buffer, start: number, end: number, owned: boolean): Buffer {
  if (start === end) return NO_BYTES
  if (owned) return buffer.subarray(start, end)
  const copy = blocks.take(end - start)
  buffer.copy(copy, 0, start, end)
  return copy
}
