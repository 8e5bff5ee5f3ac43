import { constants, createZstdCompress, type ZstdCompress } from 'node:zlib'

const CHUNK_BYTES = 128 * 1024
const LEVEL = 6

/**
 * Compresses a stream so that the same bytes give the same result, however they were cut and whenever they came.
 *
 * What zstd writes depends on the pieces it is given, and Node marks the last piece as the end or not, depending on whether the
 * end was known when that piece's turn came. So the pieces are of one size, and the end comes by itself after the last one.
 *
 * @yields The compressed bytes.
 */
export async function* zstd(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void> {
  const compressor = createZstdCompress({
    params: { [constants.ZSTD_c_compressionLevel]: LEVEL, [constants.ZSTD_c_checksumFlag]: 1 },
  })
  // Its failure destroys the compressor, whose reader below then fails with it.
  const feeding = feed(compressor, source)
  try {
    for await (const chunk of compressor) yield Buffer.from(chunk)
    await feeding
  } finally {
    compressor.destroy()
  }
}

async function feed(compressor: ZstdCompress, source: AsyncIterable<Buffer>): Promise<void> {
  try {
    for await (const chunk of equalChunks(source)) await write(compressor, chunk)
    compressor.end()
  } catch (error) {
    compressor.destroy(error instanceof Error ? error : new Error(String(error)))
  }
}

function write(compressor: ZstdCompress, chunk: Buffer): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  compressor.write(chunk, (error) => (error ? reject(error) : resolve()))
  return promise
}

async function* equalChunks(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void> {
  let waiting: Buffer[] = []
  let bytes = 0
  for await (const piece of source) {
    let rest = piece
    while (bytes + rest.length >= CHUNK_BYTES) {
      const taken = rest.subarray(0, CHUNK_BYTES - bytes)
      rest = rest.subarray(taken.length)
      yield Buffer.concat([...waiting, taken])
      waiting = []
      bytes = 0
    }
    if (rest.length > 0) waiting.push(rest)
    bytes += rest.length
  }
  if (bytes > 0) yield Buffer.concat(waiting)
}
