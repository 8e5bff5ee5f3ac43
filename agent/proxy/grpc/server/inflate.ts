import { gunzip, inflate } from 'node:zlib'
import { STATUS, type Status } from './status.ts'

const INFLATERS = new Map([
  ['gzip', gunzip],
  ['deflate', inflate],
])

/** For `grpc-accept-encoding`: what a request may be compressed with. Answers are not compressed. */
export const ENCODINGS = 'identity,deflate,gzip'

export function isKnownEncoding(encoding: string): boolean {
  return encoding === 'identity' || INFLATERS.has(encoding)
}

/** Unpacks a message whose flag says that it is compressed, up to `bytesMax`; the callback comes later, exactly once. */
export function inflateMessage(
  encoding: string,
  bytes: Buffer,
  bytesMax: number,
  done: (result: Buffer | Status) => void,
): void {
  const unpack = INFLATERS.get(encoding)
  if (unpack === undefined) {
    process.nextTick(done, { code: STATUS.internal, message: 'compressed message, no encoding' })
    return
  }
  unpack(bytes, { maxOutputLength: bytesMax }, (error, result) => {
    if (error === null) return done(result)
    if ('code' in error && error.code === 'ERR_BUFFER_TOO_LARGE') {
      const message = `message of more than ${bytesMax} bytes when unpacked`
      return done({ code: STATUS.resourceExhausted, message })
    }
    done({ code: STATUS.internal, message: `message is not ${encoding}: ${error.message}` })
  })
}
