import { grpcFrame, http2Call, http2Client, invokeMessage } from '#test/grpc-http2.ts'
import { optionNumber, RawCoap, uriPath } from '#test/raw-coap.ts'
import type { Ending, Tally } from './tally.ts'

/** One call by another protocol than HTTP. */
export interface Prober extends AsyncDisposable {
  call(): Promise<void>
}

const RESOURCE_EXHAUSTED = 8
/** What comes later than this counts as no answer. */
const ANSWER_MS = 2_000

/** Calls over one HTTP/2 connection. */
export async function grpcProber(
  port: number,
  fn: string,
  deadlineMs: number,
  tally: Tally,
): Promise<Prober> {
  const session = await http2Client(port)
  const frame = grpcFrame(invokeMessage(fn, 'x'))
  const headers = { 'grpc-timeout': `${deadlineMs}m` }
  return {
    async call() {
      const startedAtMs = performance.now()
      const { code, fields } = await http2Call(session, headers, [frame])
      const hint = Number(fields['grpc-retry-pushback-ms']) > 0
      tally.add(endingOf(code === 0, code === RESOURCE_EXHAUSTED, hint), since(startedAtMs))
    },
    [Symbol.asyncDispose]: () => session[Symbol.asyncDispose](),
  }
}

/** Confirmable requests from as many endpoints as calls are under way. */
export function coapProber(port: number, fn: string, tally: Tally): Prober {
  const free: RawCoap[] = []
  const all: RawCoap[] = []
  const open = async (): Promise<RawCoap> => {
    const endpoint = await RawCoap.open(port)
    all.push(endpoint)
    return endpoint
  }
  const request = { code: 'POST', options: uriPath(fn), payload: Buffer.from('x') } as const
  return {
    async call() {
      const endpoint = free.pop() ?? (await open())
      const startedAtMs = performance.now()
      endpoint.send({ confirmable: true, ...request })
      let answer = await endpoint.receive(ANSWER_MS).catch(() => undefined)
      // An empty acknowledgement: the answer comes separately.
      if (answer?.code === '0.00') answer = await endpoint.receive(ANSWER_MS).catch(() => undefined)
      if (answer?.confirmable === true) {
        endpoint.send({ code: '0.00', ack: true, messageId: answer.messageId, token: NOTHING })
      }
      const hint = answer !== undefined && (optionNumber(answer, 'Max-Age') ?? 0) > 0
      tally.add(
        endingOf(answer?.code === '2.05', answer?.code === '4.29', hint),
        since(startedAtMs),
      )
      // What comes too late on an endpoint would be taken for the next answer.
      if (answer !== undefined) free.push(endpoint)
    },
    async [Symbol.asyncDispose]() {
      for (const endpoint of all) await endpoint[Symbol.asyncDispose]()
    },
  }
}

const NOTHING = Buffer.alloc(0)

function endingOf(answered: boolean, refused: boolean, hint: boolean): Ending {
  if (answered) return { kind: 'answered' }
  return refused ? { kind: 'refused', hint } : { kind: 'other' }
}

function since(startedAtMs: number): number {
  return performance.now() - startedAtMs
}
