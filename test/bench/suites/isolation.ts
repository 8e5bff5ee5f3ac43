import { setTimeout as sleep } from 'node:timers/promises'
import { loadHttp } from '../calls/load-http.ts'
import { alternate, type Contestant, spread } from '../harness/alternate.ts'
import type { Plan, Question, Row } from '../harness/model.ts'
import { deploy, ECHO, echoProducts } from './echo-products.ts'

const PAYLOAD = Buffer.alloc(100, 'x')
const CONNECTIONS = [1, 4] as const
const FUNCTIONS = [
  { runtime: 'node', isolation: 'shared' },
  { runtime: 'node', isolation: 'single' },
  { runtime: 'node', isolation: 'fresh' },
  { runtime: 'python', isolation: 'fresh' },
  { runtime: 'binary', isolation: 'fresh' },
] as const
/** Between two calls of which neither waits for a container. */
const PAUSE_MS = 700
const PACED_CALLS = 3

/** What it costs that calls do not meet in a handler, or that none follows another there. */
export async function isolation(plan: Plan): Promise<Question[]> {
  await using products = await echoProducts(plan)
  const contestants: Contestant[] = []
  const paced: Paced[] = []
  for (const { product, suffix } of products.all) {
    for (const { runtime, isolation: kind } of FUNCTIONS) {
      const fn = `${kind}-${runtime}`
      const name = `${runtime}, ${kind}${suffix}`
      await deploy(product, fn, ECHO[runtime], ['--isolation', kind])
      const { http: port } = product.ports
      paced.push({ name, url: product.url(`/${fn}`) })
      for (const inFlight of CONNECTIONS) {
        const load = { port, path: `/${fn}`, payload: PAYLOAD, inFlight }
        contestants.push({
          group: inFlight === 1 ? '1 connection' : `${inFlight} connections`,
          name,
          load: (seconds) => loadHttp({ ...load, durationMs: seconds * 1_000 }),
        })
      }
    }
  }
  const times = await pacedCalls(plan, paced)
  const rows = await alternate(plan, contestants)
  return [
    {
      id: 'isolation-paced',
      title: 'Isolation: a call now and then',
      unit: 'ms',
      better: 'less',
      rows: times,
    },
    {
      id: 'isolation',
      title: 'Isolation: as many calls as it takes',
      unit: 'calls/s',
      better: 'more',
      rows,
    },
  ]
}

interface Paced {
  readonly name: string
  readonly url: string
}

async function pacedCalls(plan: Plan, paced: readonly Paced[]): Promise<Row[]> {
  const found = paced.map((one) => ({ ...one, ms: Array.of<number>() }))
  for (let call = 0; call < plan.rounds * PACED_CALLS; call++) {
    for (const { name, url, ms } of found) {
      await sleep(PAUSE_MS)
      const startedMs = performance.now()
      const answer = await fetch(url, { method: 'POST', body: PAYLOAD })
      await answer.arrayBuffer()
      if (!answer.ok) throw new Error(`${name}: ${answer.status}`)
      ms.push(Number((performance.now() - startedMs).toFixed(1)))
    }
  }
  return found.map(({ name, ms }) => ({
    group: `one call in ${(FUNCTIONS.length * PAUSE_MS) / 1_000} s`,
    name,
    ...spread(ms),
  }))
}
