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

/** As many as Node's thread pool works on at once; each may grow to the largest message. */
const AT_ONCE_MAX = 4

/** Unpacks messages a few at a time: many small ones may mean many large ones. */
export class Inflater {
  #running = 0
  readonly #waiting: (() => void)[] = []

  /** Unpacks a message whose flag says that it is compressed, up to `bytesMax`; the callback comes later, exactly once. */
  inflate(
    encoding: string,
    bytes: Buffer,
    bytesMax: number,
    done: (result: Buffer | Status) => void,
  ): void {
    if (this.#running >= AT_ONCE_MAX) {
      this.#waiting.push(() => this.inflate(encoding, bytes, bytesMax, done))
      return
    }
    this.#running += 1
    inflateMessage(encoding, bytes, bytesMax, (result) => {
      this.#running -= 1
      this.#waiting.shift()?.()
      done(result)
    })
  }
}

function inflateMessage(
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
