import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ProductPorts } from '#test/product.ts'
import { coapCaller, grpcCaller, httpCaller, type Caller } from './callers.ts'
import { CRASH, VERSIONS } from './functions.ts'
import type { Answer, Tally } from './tally.ts'

interface Lane {
  readonly protocol: string
  readonly open: (ports: ProductPorts) => Promise<Caller> | Caller
  readonly lanes: number
  /** Sizes of bodies, one after the other. */
  readonly sizes: readonly number[]
  /** Calls on one connection, or from one endpoint. */
  readonly callsEach: number
}

const LANES: readonly Lane[] = [
  {
    protocol: 'http',
    open: ({ http }) => httpCaller(http),
    lanes: 6,
    sizes: [0, 100, 100, 1_024, 100, 65_536, 100, 1_024, 100, 1_048_576],
    callsEach: 200,
  },
  // What fits in one datagram each way.
  {
    protocol: 'coap',
    open: ({ coap }) => coapCaller(coap),
    lanes: 8,
    sizes: [1, 100, 16, 900],
    callsEach: 10,
  },
  {
    protocol: 'grpc',
    open: ({ grpc }) => grpcCaller(grpc),
    lanes: 4,
    sizes: [0, 100, 1_024, 65_536],
    callsEach: 500,
  },
]

/** More of what costs little: a binary is a process a call. */
const FUNCTIONS = [
  'echo-node',
  'echo-python',
  'live',
  'echo-node',
  'echo-python',
  'echo-node',
  'echo-binary',
  'crash',
] as const

/** What a caller may be told while a handler has just ended: it did in this call, in the middle of its answer, or none is there yet. */
const CRASH_FAULTS =
  /^(?:502 FUNCTION_EXITED|503 FUNCTION_UNAVAILABLE|5\.0[23] .*|14 FUNCTION_.*|broken off)$/

/** Between two calls of a lane, so that the machine is busy and not full. */
const PAUSE_MS = 2
const CRASH_EVERY_MS = 20_000
/** Above its idle time: most calls find it asleep. */
const NAP_EVERY_MS = 4_000

export interface MixedLoad {
  readonly ports: ProductPorts
  readonly tally: Tally
  /** Of `http`, `coap` and `grpc`. */
  readonly protocols: readonly string[]
}

/** Calls by these protocols until `signal` is aborted; resolves when all calls have ended. */
export async function mixedLoad(
  { ports, tally, protocols }: MixedLoad,
  signal: AbortSignal,
): Promise<void> {
  const bytes = randomBytes(1_048_576)
  const lanes = LANES.filter(({ protocol }) => protocols.includes(protocol)).flatMap((lane) =>
    Array.from({ length: lane.lanes }, (_, n) => runLane(lane, n, { ports, tally, bytes, signal })),
  )
  const naps = every(NAP_EVERY_MS, signal, async () => {
    await using caller = httpCaller(ports.http)
    const body = bytes.subarray(0, 100)
    await callOnce(caller, { protocol: 'http', fn: 'nap', body }, tally)
  })
  const crashes = every(CRASH_EVERY_MS, signal, async () => {
    await using caller = httpCaller(ports.http)
    await callOnce(caller, { protocol: 'http', fn: 'crash', body: Buffer.from(CRASH) }, tally)
  })
  await Promise.all([...lanes, naps, crashes])
}

interface Run {
  readonly ports: ProductPorts
  readonly tally: Tally
  readonly bytes: Buffer
  readonly signal: AbortSignal
}

async function runLane(
  { protocol, open, sizes, callsEach }: Lane,
  first: number,
  { ports, tally, bytes, signal }: Run,
): Promise<void> {
  await using caller = await open(ports)
  for (let n = first; !signal.aborted; n++) {
    const fn = FUNCTIONS[n % FUNCTIONS.length] ?? 'echo-node'
    const size = sizes[Math.floor(n / FUNCTIONS.length) % sizes.length] ?? 0
    await callOnce(caller, { protocol, fn, body: bytes.subarray(0, size) }, tally)
    if (n % callsEach === 0) await caller.renew()
    await sleep(PAUSE_MS)
  }
}

interface Call {
  readonly protocol: string
  readonly fn: string
  readonly body: Buffer
}

async function callOnce(caller: Caller, { protocol, fn, body }: Call, tally: Tally): Promise<void> {
  const what = `${protocol} ${fn}`
  try {
    const answer = await caller.call(fn, body)
    if (isRight(fn, body, answer)) tally.right(what)
    else if (fn === 'crash' && CRASH_FAULTS.test(answer.code))
      tally.fault(`${what}: ${answer.code}`)
    else tally.unexpected(`${what} with ${body.length} bytes`, answer)
  } catch (error) {
    tally.unexpected(`${what} with ${body.length} bytes`, error)
  }
}

function isRight(fn: string, body: Buffer, answer: Answer): boolean {
  if (answer.code !== 'ok') return false
  if (fn !== 'live') return answer.body.equals(body)
  return VERSIONS.some((version) => version === answer.body.toString())
}

/** Calls `act` in turns, each this long after the one before. */
export async function every(
  ms: number,
  signal: AbortSignal,
  act: () => Promise<void>,
): Promise<void> {
  while (!signal.aborted) {
    await act()
    await sleep(ms, undefined, { signal }).catch(() => undefined)
  }
}
