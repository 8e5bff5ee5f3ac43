import { constants, type ServerHttp2Stream } from 'node:http2'
import type { HeaderList } from '#agent/invoke/index.ts'
import type { CallStream, CallStreamListener } from './call-stream.ts'

/** An answer of which the caller takes nothing for this long is given up. */
const STALLED_MS = 60_000
/** Answers that may wait longer than a moment for the caller. */
const LARGE_BYTES_MIN = 64 * 1024

// Arrays and objects that every answer shares; node:http2 does not change them.
const HEADER: string[] = [':status', '200', 'content-type', 'application/grpc']
const WITH_TRAILERS = { waitForTrailers: true, sendDate: false }
const HEADER_ONLY = { endStream: true, sendDate: false }
const OK: HeaderList = ['grpc-status', '0']

/** A call's stream on `node:http2`. */
export class Http2CallStream implements CallStream {
  readonly #stream: ServerHttp2Stream
  #trailers: HeaderList = OK

  constructor(stream: ServerHttp2Stream) {
    this.#stream = stream
    // What went wrong shows in `close`; without a listener it would end the process.
    stream.on('error', ignore)
  }

  listen(listener: CallStreamListener): void {
    const stream = this.#stream
    stream.on('data', (chunk: Buffer) => listener.data(chunk))
    stream.on('end', () => listener.end())
    stream.on('drain', () => listener.drained())
    stream.on('close', () => listener.closed())
  }

  open(): void {
    const stream = this.#stream
    if (isGone(stream)) return
    stream.respond(HEADER, WITH_TRAILERS)
    stream.on('wantTrailers', () => stream.sendTrailers(fieldsOf(this.#trailers)))
  }

  write(frame: Buffer): boolean {
    return isGone(this.#stream) || this.#stream.write(frame)
  }

  end(trailers: HeaderList): void {
    this.#trailers = trailers
    if (!isGone(this.#stream)) this.#stream.end()
  }

  answer(frame: Buffer): void {
    this.open()
    if (isGone(this.#stream)) return
    this.#stream.end(frame)
    if (frame.length > LARGE_BYTES_MIN) this.#giveUpWhenStalled()
  }

  refuse(header: HeaderList): void {
    const stream = this.#stream
    if (isGone(stream)) return
    stream.respond([...header], HEADER_ONLY)
    stream.close(constants.NGHTTP2_NO_ERROR)
  }

  pause(): void {
    this.#stream.pause()
  }

  resume(): void {
    this.#stream.resume()
  }

  #giveUpWhenStalled(): void {
    const stream = this.#stream
    stream.setTimeout(STALLED_MS, () => stream.close(constants.NGHTTP2_CANCEL))
  }
}

function isGone(stream: ServerHttp2Stream): boolean {
  return stream.destroyed || stream.closed
}

function fieldsOf(list: HeaderList): Record<string, string> {
  const fields: Record<string, string> = {}
  for (let at = 0; at + 1 < list.length; at += 2) fields[list[at] ?? ''] = list[at + 1] ?? ''
  return fields
}

function ignore(): void {}
