import type { Move } from './frame-moves.ts'
import { TYPE } from './frame-peer.ts'

// What runtimes/PROTOCOL.md says an agent does with the frames of a ready runner, written from that page alone.

const FRAME_BYTES_MAX = 1_114_112
const CONTROL_BYTES_MAX = 131_072
const PING_BYTES_MAX = 64
const WINDOW_BYTES = 262_144
const STRAYS_MAX = 64

/** What becomes of a call: `open` when nothing has ended it. */
export type CallEnd = 'open' | 'ok' | 'fault'

export interface Prediction {
  /** `unknown`: the page leaves it to timing, or the frames after a lie cannot be told. */
  readonly link: 'lives' | 'ends' | 'unknown'
  /** By id, from 1. Only when the link is not `unknown`. */
  readonly calls: readonly CallEnd[]
}

interface Call {
  answering: boolean
  bytes: number
  end: CallEnd
}

const ENDS = Symbol('ends')
const UNKNOWN = Symbol('unknown')
type Step = typeof ENDS | typeof UNKNOWN | undefined

/** With calls 1 to `count` in flight, their bodies sent, their answers read at once. */
export function predict(moves: readonly Move[], count: number): Prediction {
  const calls = Array.from({ length: count }, (): Call => ({
    answering: false,
    bytes: 0,
    end: 'open',
  }))
  const strays = { count: 0 }
  for (const move of moves) {
    for (let time = 0; time < move.times; time++) {
      const step = take(move, calls, strays)
      if (step === UNKNOWN) return { link: 'unknown', calls: [] }
      if (step === ENDS) return { link: 'ends', calls: calls.map(({ end }) => end) }
    }
  }
  return { link: 'lives', calls: calls.map(({ end }) => end) }
}

function take(move: Move, calls: readonly Call[], strays: { count: number }): Step {
  const { type, id, payload } = move
  const length = move.length ?? payload.length
  if (length > bytesMax(type) || length < bytesMin(type)) return ENDS
  // What follows is read as another frame's payload, or as a header.
  if (length !== payload.length) return UNKNOWN
  const isOfCall = type === TYPE.response || type === TYPE.data || type === TYPE.error
  if (!isOfCall) return isForbidden(type) ? ENDS : undefined
  const call = calls[id - 1]
  if (call === undefined || call.end !== 'open') {
    strays.count += 1
    return strays.count > STRAYS_MAX ? ENDS : undefined
  }
  if (type === TYPE.error) {
    call.end = 'fault'
    return undefined
  }
  return type === TYPE.response ? respond(move, call) : continueBody(move, call)
}

function respond({ payload, end }: Move, call: Call): Step {
  if (call.answering) return ENDS
  const bytes = Buffer.from(payload)
  const bodyAt = 4 + bytes.readUInt16BE(2)
  const status = bytes.readUInt16BE(0)
  if (bodyAt > bytes.length || status < 200 || status > 599) return ENDS
  if (!isHead(bytes.toString('utf8', 4, bodyAt))) return ENDS
  call.answering = true
  return body(bytes.length - bodyAt, end, call)
}

function continueBody({ payload, end }: Move, call: Call): Step {
  return call.answering ? body(payload.length, end, call) : ENDS
}

function body(bytes: number, end: boolean, call: Call): Step {
  call.bytes += bytes
  // Never is more than one window open; what the reader has consumed until now is a matter of time.
  if (bytes > WINDOW_BYTES) return ENDS
  if (call.bytes > WINDOW_BYTES) return UNKNOWN
  if (end) call.end = 'ok'
  return undefined
}

/** Section 4.2: an even number of lines; names are lower-case tokens, values hold no carriage return and no NUL. */
function isHead(text: string): boolean {
  if (text === '') return true
  const lines = text.split('\n')
  return (
    lines.length % 2 === 0 &&
    lines.every((line, at) =>
      at % 2 === 0
        ? /^[!#$%&'*+\-.^_`|~0-9a-z]+$/.test(line)
        : !line.includes('\r') && !line.includes('\0'),
    )
  )
}

function isForbidden(type: number): boolean {
  const forbidden: readonly number[] = [
    TYPE.hello,
    TYPE.welcome,
    TYPE.init,
    TYPE.ready,
    TYPE.shutdown,
    TYPE.request,
    TYPE.cancel,
  ]
  return forbidden.includes(type)
}

function bytesMax(type: number): number {
  if (type === TYPE.ping || type === TYPE.pong) return PING_BYTES_MAX
  return type === TYPE.hello || type === TYPE.ready ? CONTROL_BYTES_MAX : FRAME_BYTES_MAX
}

function bytesMin(type: number): number {
  const fixed: Readonly<Record<number, number>> = {
    [TYPE.request]: 6,
    [TYPE.response]: 4,
    [TYPE.window]: 4,
    [TYPE.cancel]: 1,
    [TYPE.error]: 1,
    [TYPE.log]: 1,
  }
  return fixed[type] ?? 0
}
