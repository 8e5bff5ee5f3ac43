import { FrameDecoder, FrameWriter, ProtocolError } from '#agent/invoke/frames/index.ts'
import { RunnerLink } from '#agent/invoke/link/index.ts'
import type { LinkConnection, LinkEnd } from '#agent/invoke/link/index.ts'
import { TYPE, cutFrames, errorBytes, frameBytes, responseBytes } from './frame-peer.ts'
import type { WireFrame } from './frame-peer.ts'

/** A link whose other end is in the same process: real frames, no socket, no waiting. */
export class MemoryRunner {
  readonly link: RunnerLink
  readonly ends: LinkEnd[] = []
  readonly #writer: FrameWriter
  readonly #decoder: FrameDecoder
  #sent: Buffer = Buffer.alloc(0)
  #over = false

  /** @param nowMs - the clock of its PINGs */
  constructor(handler: string, nowMs: () => number, windowBytes = 65_536) {
    const output = {
      backlogBytes: 0,
      write: (chunk: Buffer) => {
        this.#sent = Buffer.concat([this.#sent, chunk])
      },
      cork: () => {},
      uncork: () => {},
    }
    this.#writer = new FrameWriter(output)
    const connection: LinkConnection = {
      writer: this.#writer,
      pong: (id, payload) => this.#writer.control(TYPE.pong, id, payload),
      end: (end) => this.end(end),
    }
    const hello = {
      protocol: 1,
      handler,
      runtime: 'nodejs',
      runner: '1.0.0',
      pid: 1,
      state: 'ready',
    } as const
    this.link = new RunnerLink(connection, hello, windowBytes, nowMs)
    this.link.onClose = (end) => this.ends.push(end)
    this.#decoder = new FrameDecoder(this.link)
    this.send(frameBytes(TYPE.ready, 0, '{"ok":true}'))
  }

  /** Frames that the link has sent since the last look. */
  received(): readonly WireFrame[] {
    this.#writer.flush()
    const { frames, rest } = cutFrames(this.#sent)
    this.#sent = rest
    return frames
  }

  send(bytes: Buffer): void {
    if (this.#over) return
    try {
      this.#decoder.push(bytes)
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      this.end({ kind: 'protocol', reason: error.message })
    }
  }

  answer(id: number, body: Buffer | string = '', status = 200): void {
    this.send(responseBytes(id, body, { status }))
  }

  fail(id: number, kind = 0, text = 'Error: no\n    at fn'): void {
    this.send(errorBytes(id, kind, text))
  }

  /** The connection ends, by default because the runner has gone. */
  end(end: LinkEnd = { kind: 'exited', reason: 'The runner closed its connection' }): void {
    if (this.#over) return
    this.#over = true
    this.#writer.close()
    this.link.ended(end)
  }
}
