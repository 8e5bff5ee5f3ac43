/**
 * Takes the engine's log stream of a container without TTY apart: frames of 1 byte stream, 3 bytes 0, u32 length, text.
 * What is left of a frame that was cut counts as text.
 */
export function demultiplex(raw: Buffer): Buffer {
  const parts: Buffer[] = []
  let at = 0
  while (at + 8 <= raw.length) {
    const end = at + 8 + raw.readUInt32BE(at + 4)
    parts.push(raw.subarray(at + 8, end))
    at = end
  }
  return Buffer.concat(parts)
}
