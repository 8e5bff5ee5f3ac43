import { writeFile } from 'node:fs/promises'
import { cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import { loadSync } from '@grpc/proto-loader'
import { functionFolder } from '#test/function-folder.ts'
import { childScope } from '#test/process.ts'
import { productScope, type ProductScope } from '#test/product.ts'
import { loadCoap } from './load-coap.ts'
import { loadGrpc } from './load-grpc.ts'
import { httpTool, loadHttp } from './load-http.ts'
import { median, type Round } from './load.ts'
import { renderReadme } from './render.ts'

/**
 * `npm run bench`: calls through the whole product (front, agent, container and back) beside the least that Node can do,
 * contestants in alternation, in one run. Writes test/bench/results/calls.json and README's tables.
 *
 * BENCH_ROUNDS (default 3) and BENCH_SECONDS (default 4) make it longer or shorter.
 */
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 3)
const DURATION_MS = Number(process.env['BENCH_SECONDS'] ?? 4) * 1000
const PAYLOAD = Buffer.alloc(100, 'x')
const RESULTS = join(import.meta.dirname, '../results/calls.json')

/** The same echo in three languages. */
const ECHO = {
  node: { 'index.js': 'module.exports = (req, res) => res.send(req.rawBody)' },
  python: { 'fn.py': 'def handle(request, context):\n    return request.body\n' },
  binary: { 'fn.sh': '#!/bin/sh\nexec cat\n' },
} as const

interface Contestant {
  readonly protocol: 'http' | 'coap' | 'grpc'
  readonly name: string
  readonly inFlight: number
  load(): Promise<Round>
}

export interface Measured {
  readonly protocol: string
  readonly name: string
  readonly inFlight: number
  readonly perSecond: number
  readonly perSecondMin: number
  readonly perSecondMax: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly errors: number
  /** Of the bare server's rate with as many in flight, in this run. */
  readonly timesBare: number
}

export interface Results {
  readonly command: string
  readonly machine: Readonly<Record<string, string | number>>
  readonly calls: readonly Measured[]
  /** Milliseconds from `fn deploy` with a bundle already built to the first answer, per runtime. */
  readonly deploy: readonly {
    readonly runtime: string
    readonly medianMs: number
    readonly allMs: readonly number[]
  }[]
}

async function main(): Promise<void> {
  await using product = await productScope({ SHOAL_SAMPLES: '0' })
  await product.start()
  for (const [name, files] of Object.entries(ECHO)) await deploy(product, `echo-${name}`, files)

  await using http = await bare('http')
  await using grpc = await bare('grpc')
  await using coap = await bare('coap')
  const contestants = [
    ...[1, 32].flatMap((inFlight) => httpContestants(product, http.port, inFlight)),
    ...coapContestants(product, coap.port),
    ...grpcContestants(product, grpc.port),
  ]
  const rounds = new Map<Contestant, Round[]>()
  for (let round = 0; round < ROUNDS; round++) {
    for (const contestant of contestants) {
      const found = await contestant.load()
      rounds.set(contestant, [...(rounds.get(contestant) ?? []), found])
      const { protocol, name, inFlight } = contestant
      process.stdout.write(
        `${round + 1} ${protocol} ${name} ${inFlight} ${JSON.stringify(found)}\n`,
      )
    }
  }
  const results: Results = {
    command: 'npm run bench',
    machine: machine(),
    calls: summarise(rounds),
    deploy: await measureDeploys(product),
  }
  await writeFile(RESULTS, `${JSON.stringify(results, undefined, 2)}\n`)
  await renderReadme(results)
}

async function deploy(
  product: ProductScope,
  name: string,
  files: Readonly<Record<string, string>>,
): Promise<void> {
  await using folder = await functionFolder(files)
  const ran = await product.shoal('fn', 'deploy', folder.path, '--name', name)
  if (ran.code !== 0) throw new Error(ran.stdout + ran.stderr)
}

async function bare(kind: string): Promise<AsyncDisposable & { readonly port: number }> {
  const child = await childScope({ script: join(import.meta.dirname, 'bare.ts'), args: [kind] })
  const { port }: { port: number } = JSON.parse(child.readyLine)
  return { port, [Symbol.asyncDispose]: () => child[Symbol.asyncDispose]() }
}

function httpContestants(product: ProductScope, barePort: number, inFlight: number): Contestant[] {
  const options = { payload: PAYLOAD, inFlight, durationMs: DURATION_MS }
  return [
    {
      protocol: 'http',
      name: 'bare',
      inFlight,
      load: () => loadHttp({ ...options, port: barePort, path: '/' }),
    },
    ...Object.keys(ECHO).map((name): Contestant => {
      const path = `/echo-${name}`
      return {
        protocol: 'http',
        name,
        inFlight,
        load: () => loadHttp({ ...options, port: product.ports.http, path }),
      }
    }),
  ]
}

function coapContestants(product: ProductScope, barePort: number): Contestant[] {
  const options = { payload: PAYLOAD, inFlight: 32, durationMs: DURATION_MS }
  const contestant = (name: string, port: number, path: string): Contestant => ({
    protocol: 'coap',
    name,
    inFlight: 32,
    load: () => loadCoap({ ...options, port, path }),
  })
  return [
    contestant('bare', barePort, '/echo'),
    ...Object.keys(ECHO).map((name) => contestant(name, product.ports.coap, `/echo-${name}`)),
  ]
}

function grpcContestants(product: ProductScope, barePort: number): Contestant[] {
  const file = join(import.meta.dirname, '../../../proto/shoal.proto')
  const invoke = Reflect.get(Object(loadSync(file)['shoal.v1.Functions']), 'Invoke')
  const serialize: unknown = Reflect.get(Object(invoke), 'requestSerialize')
  if (typeof serialize !== 'function') throw new TypeError('shoal.proto has no Invoke')
  const options = { inFlight: 32, durationMs: DURATION_MS }
  const contestant = (name: string, port: number, method: string, payload: Buffer): Contestant => ({
    protocol: 'grpc',
    name,
    inFlight: 32,
    load: () => loadGrpc({ ...options, port, method, payload }),
  })
  return [
    contestant('bare', barePort, '/bare.Echo/Echo', PAYLOAD),
    ...Object.keys(ECHO).map((name) => {
      const message: Buffer = serialize({ function: `echo-${name}`, payload: PAYLOAD })
      return contestant(name, product.ports.grpc, '/shoal.v1.Functions/Invoke', message)
    }),
  ]
}

function summarise(rounds: ReadonlyMap<Contestant, readonly Round[]>): Measured[] {
  const rate = (contestant: Contestant): number =>
    median((rounds.get(contestant) ?? []).map(({ perSecond }) => perSecond))
  return [...rounds].map(([contestant, found]) => {
    const { protocol, name, inFlight } = contestant
    const yardstick = [...rounds.keys()].find(
      (one) => one.protocol === protocol && one.inFlight === inFlight && one.name === 'bare',
    )
    const perSecond = found.map((one) => one.perSecond)
    return {
      protocol,
      name,
      inFlight,
      perSecond: median(perSecond),
      perSecondMin: Math.min(...perSecond),
      perSecondMax: Math.max(...perSecond),
      p50Ms: median(found.map((one) => one.p50Ms)),
      p99Ms: median(found.map((one) => one.p99Ms)),
      errors: found.reduce((sum, one) => sum + one.errors, 0),
      timesBare:
        yardstick === undefined ? 0 : Number((rate(contestant) / rate(yardstick)).toFixed(3)),
    }
  })
}

/** A new name each time, with a source that the builder has seen: the build is a cache hit, the start is not. */
async function measureDeploys(product: ProductScope): Promise<Results['deploy']> {
  const results = []
  for (const [runtime, files] of Object.entries(ECHO)) {
    const allMs: number[] = []
    for (let round = 0; round < ROUNDS; round++) {
      const name = `first-${runtime}-${round}`
      await using folder = await functionFolder(files)
      const startedAt = performance.now()
      const deploying = product.shoal('fn', 'deploy', folder.path, '--name', name)
      for (;;) {
        const answer = await fetch(product.url(`/${name}`), { method: 'POST', body: 'x' })
        await answer.arrayBuffer()
        if (answer.status === 200) break
        if (performance.now() - startedAt > 60_000) throw new Error(`${name} does not answer`)
      }
      allMs.push(Math.round(performance.now() - startedAt))
      await deploying
      await product.shoal('fn', 'rm', name)
    }
    results.push({ runtime, medianMs: median(allMs), allMs })
  }
  return results
}

function machine(): Results['machine'] {
  const [cpu] = cpus()
  return {
    cores: cpus().length,
    cpu: cpu?.model ?? 'unknown',
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    node: process.version,
    arch: process.arch,
    httpLoad: httpTool,
    rounds: ROUNDS,
    secondsPerRound: DURATION_MS / 1000,
    date: new Date().toISOString().slice(0, 10),
  }
}

await main()
