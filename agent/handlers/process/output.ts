import { open, truncate, type FileHandle } from 'node:fs/promises'

const OUTPUT_BYTES_MAX = 1024 * 1024
const OUTPUT_BYTES_KEPT = 64 * 1024

/** Keeps the end of a file that has grown too large; its writer appends, so it goes on behind what is kept. */
export async function boundOutput(path: string): Promise<void> {
  const file = await open(path, 'r+')
  try {
    const { size } = await file.stat()
    if (size <= OUTPUT_BYTES_MAX) return
    const kept = await readEnd(file, OUTPUT_BYTES_KEPT)
    await truncate(path, 0)
    await file.write(kept, 0, kept.length, 0)
  } finally {
    await file.close()
  }
}

/** The last bytes of a file, at most `bytesMax`. */
export async function readEnd(file: FileHandle, bytesMax: number): Promise<Buffer> {
  const { size } = await file.stat()
  const bytes = Math.min(size, bytesMax)
  const { buffer, bytesRead } = await file.read(Buffer.alloc(bytes), 0, bytes, size - bytes)
  return buffer.subarray(0, bytesRead)
}
