import type { LogLine } from '#shared/schemas/health.ts'
import type { Fault } from '#shared/fault.ts'
import type { FrameWriter } from '../frames/index.ts'
import type { Invocation, Result } from '../model.ts'

/** What the runner said of itself when it connected. */
export interface RunnerHello {
  /** Version that was chosen. */
  readonly protocol: number
  readonly handler: string
  readonly runtime: string
  readonly runner: string
  readonly pid: number
  readonly state: 'empty' | 'loading' | 'ready' | 'failed'
  /** Of the INIT it has had before; absent when `empty`. */
  readonly fn?: string
  readonly release?: string
}

/** Payload of INIT. */
export interface RunnerInit {
  readonly fn: string
  readonly release: string
  /** The bundle's folder as the runner sees it. */
  readonly dir: string
  readonly entry?: string
  readonly env: Readonly<Record<string, string>>
  readonly concurrency: number
  readonly timeoutMs: number
}

export interface RunnerLogLine {
  readonly level: LogLine['level']
  /** Request id of the call that wrote it, when known. */
  readonly request: string | undefined
  readonly text: string
}

/**
 * greeted: WELCOME sent, nothing loaded; loading: INIT sent, or the runner said so; ready: takes calls; failed: the
 * function cannot be loaded.
 */
export type LinkState = 'greeted' | 'loading' | 'ready' | 'failed' | 'closed'

/** Why a link ended. */
export interface LinkEnd {
  /** closed: by us; exited: by the runner; replaced: by a newer HELLO; protocol: the runner broke the protocol. */
  readonly kind: 'closed' | 'exited' | 'replaced' | 'protocol'
  /** One sentence. */
  readonly reason: string
}

/** What a link needs of the connection that carries it. */
export interface LinkConnection {
  readonly writer: FrameWriter
  /** Answers a PING. @throws ProtocolError when the runner does not read what it is sent */
  pong(id: number, payload: Buffer): void
  /** Ends the connection, which tells the link. Idempotent. */
  end(end: LinkEnd): void
}

/** A call as a link sees it. The link holds no promise and no timer for it; these methods are all it does. */
export interface LinkCall {
  readonly invocation: Invocation
  /** Most bytes of body, either way. */
  readonly bodyBytesMax: number
  /** Set by the link: the call's id while the runner works on it, else 0. */
  slot: number
  /** The answer's head, with the whole body or a stream of it. Comes at most once, and not after `failed`. */
  answered(result: Result): void
  /** Instead of `answered`; or after it, when the body broke off (the stream has been destroyed with the same fault). */
  failed(fault: Fault): void
  /** The consumer destroyed the body's stream; the link has sent CANCEL. Only after `answered`. */
  dropped(): void
  /** The runner has ended its side and the slot is free. Last of all, exactly once; `slot` is 0 again. */
  released(): void
}
