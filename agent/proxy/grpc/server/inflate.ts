import { gunzip, inflate } from 'node:zlib'
import { type Linked, LinkedList } from '#shared/linked-list.ts'
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

/** A message that waits for its turn. */
interface Waiter extends Linked<Waiter> {
  readonly begin: () => void
  waits: boolean
}

/** Unpacks messages a few at a time: many small ones may mean many large ones. */
export class Inflater {
  #running = 0
  readonly #waiting = new LinkedList<Waiter>()

  /** The next message has to wait for its turn. */
  get busy(): boolean {
    return this.#running >= AT_ONCE_MAX
  }

  /**
   * Unpacks a message whose flag says that it is compressed, up to `bytesMax`.
   *
   * @param done - Called exactly once: later with the message or what is wrong with it, or with `undefined` when it is dropped.
   * @returns drops the message, if its turn has not come; `undefined` when it has
   */
  inflate(
    encoding: string,
    bytes: Buffer,
    bytesMax: number,
    done: (result: Buffer | Status | undefined) => void,
  ): (() => void) | undefined {
    const begin = (): void => {
      this.#running += 1
      inflateMessage(encoding, bytes, bytesMax, (result) => {
        this.#running -= 1
        this.#next()
        done(result)
      })
    }
    if (!this.busy) {
      begin()
      return undefined
    }
    const waiter: Waiter = { begin, waits: true, before: undefined, behind: undefined }
    this.#waiting.push(waiter)
    return () => {
      if (!waiter.waits) return
      waiter.waits = false
      this.#waiting.remove(waiter)
      done(undefined)
    }
  }

  #next(): void {
    const waiter = this.#waiting.shift()
    if (waiter === undefined) return
    waiter.waits = false
    waiter.begin()
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
