import { join } from 'node:path'
import { childScope } from '#test/process.ts'
import { loadCoap } from '../calls/load-coap.ts'
import { loadHttp } from '../calls/load-http.ts'
import { classic, type ClassicKind } from '../classic/classic.ts'
import { CONNECTIONS, loadGrpc, STREAMS } from '../grpc/load.ts'
import { requestFrame } from '../grpc/messages.ts'
import { alternate, shortTurns, type Contestant } from '../harness/alternate.ts'
import type { Plan, Question } from '../harness/model.ts'
import { echoProducts, LANGUAGES, type EchoProduct } from './echo-products.ts'

const PAYLOAD = Buffer.alloc(100, 'x')
const CLASSICS: readonly ClassicKind[] = ['express', 'python', 'fork']
/** Without the process per call, which is as slow however many wait for it. */
const KEPT = LANGUAGES.filter((name) => name !== 'binary')
const BODIES = [
  { group: '1 KiB, 32 connections', bytes: 1_024, connections: 32 },
  { group: '64 KiB, 8 connections', bytes: 64 * 1_024, connections: 8 },
  { group: '1 MiB, 4 connections', bytes: 1_024 * 1_024, connections: 4 },
] as const

/** Calls through whole products (front, agent, container and back), beside the least that Node can do and the classic design. */
export async function calls(plan: Plan): Promise<Question[]> {
  await using products = await echoProducts(plan)
  const { all } = products
  return [
    await httpQuestion(shortTurns(plan), all),
    await bodiesQuestion(plan, all),
    await grpcQuestion(plan, all),
    await coapQuestion(plan, all),
  ]
}

async function httpQuestion(plan: Plan, products: readonly EchoProduct[]): Promise<Question> {
  await using stack = new AsyncDisposableStack()
  const { port: barePort } = stack.use(await bare('http'))
  const classics = await Promise.all(
    CLASSICS.map(async (kind) => {
      const { port } = stack.use(await classic(kind))
      return { kind, port }
    }),
  )
  const contestants = [1, 32, 256].flatMap((inFlight): Contestant[] => {
    const group = inFlight === 1 ? '1 connection' : `${inFlight} connections`
    const one = (name: string, port: number, path: string): Contestant => ({
      group,
      name,
      load: (seconds) =>
        loadHttp({ port, path, payload: PAYLOAD, inFlight, durationMs: seconds * 1_000 }),
    })
    return [
      one('bare node:http', barePort, '/'),
      ...products.flatMap(({ suffix, product }) =>
        (inFlight === 32 ? LANGUAGES : KEPT).map((name) =>
          one(`${name}${suffix}`, product.ports.http, `/echo-${name}`),
        ),
      ),
      ...(inFlight === 32 ? classics : []).map(({ kind, port }) =>
        one(`classic ${kind}`, port, '/'),
      ),
    ]
  })
  const rows = await alternate(plan, contestants)
  return { id: 'http', title: 'HTTP, echo of 100 bytes', unit: 'calls/s', better: 'more', rows }
}

async function bodiesQuestion(plan: Plan, products: readonly EchoProduct[]): Promise<Question> {
  await using server = await bare('http')
  const contestants = BODIES.flatMap(({ group, bytes, connections }): Contestant[] => {
    const payload = Buffer.alloc(bytes, 'x')
    const one = (name: string, port: number, path: string): Contestant => ({
      group,
      name,
      load: (seconds) =>
        loadHttp({ port, path, payload, inFlight: connections, durationMs: seconds * 1_000 }),
    })
    return [
      one('bare node:http', server.port, '/'),
      ...products.flatMap(({ suffix, product }) =>
        KEPT.map((name) => one(`${name}${suffix}`, product.ports.http, `/echo-${name}`)),
      ),
    ]
  })
  const rows = await alternate(plan, contestants)
  return { id: 'bodies', title: 'HTTP, larger bodies', unit: 'calls/s', better: 'more', rows }
}

async function grpcQuestion(plan: Plan, products: readonly EchoProduct[]): Promise<Question> {
  const script = join(import.meta.dirname, '../grpc/server.ts')
  await using server = await childScope({ script, args: ['grpc-js'] })
  const { port: barePort }: { port: number } = JSON.parse(server.readyLine)
  const rows = await alternate(plan, [
    overGrpc('bare @grpc/grpc-js', barePort, 'echo'),
    ...products.flatMap(({ suffix, product }) =>
      KEPT.map((name) => overGrpc(`${name}${suffix}`, product.ports.grpc, `echo-${name}`)),
    ),
  ])
  const title = 'gRPC unary, echo of 100 bytes'
  return { id: 'grpc', title, unit: 'calls/s', better: 'more', rows }
}

async function coapQuestion(plan: Plan, products: readonly EchoProduct[]): Promise<Question> {
  await using server = await bare('coap')
  await using tuned = await bare('coap-small-cache')
  const contestants = (inFlight: number): Contestant[] => [
    overCoap('bare coap', server.port, '/echo', inFlight),
    ...(inFlight === 32 ? [overCoap('coap, cache of 64 KiB', tuned.port, '/echo', inFlight)] : []),
    ...products.flatMap(({ suffix, product: { ports } }) =>
      KEPT.map((name) => overCoap(`${name}${suffix}`, ports.coap, `/echo-${name}`, inFlight)),
    ),
  ]
  const rows = [
    ...(await alternate(shortTurns(plan), contestants(32))),
    ...(await alternate(plan, contestants(128))),
  ]
  return {
    id: 'coap',
    title: 'CoAP confirmable, echo of 100 bytes',
    unit: 'calls/s',
    better: 'more',
    rows,
  }
}

function overGrpc(name: string, port: number, fn: string): Contestant {
  const frame = requestFrame('shoal', PAYLOAD.length, fn)
  return {
    group: `${CONNECTIONS} connections with ${STREAMS} streams`,
    name,
    load: (seconds) => loadGrpc({ port, service: 'shoal', frame, seconds }),
  }
}

function overCoap(name: string, port: number, path: string, inFlight: number): Contestant {
  return {
    group: `${inFlight} in flight from 8 ports`,
    name,
    load: (seconds) =>
      loadCoap({ port, path, payload: PAYLOAD, inFlight, durationMs: seconds * 1_000 }),
  }
}

async function bare(kind: string): Promise<AsyncDisposable & { readonly port: number }> {
  const script = join(import.meta.dirname, '../calls/bare.ts')
  const child = await childScope({ script, args: [kind] })
  const { port }: { port: number } = JSON.parse(child.readyLine)
  return { port, [Symbol.asyncDispose]: () => child[Symbol.asyncDispose]() }
}
