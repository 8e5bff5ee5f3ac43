import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { describe, it } from 'node:test'
import { Registry } from 'prom-client'
import {
  AdminServer,
  agentMetrics,
  HostSampler,
  InventoryReader,
  Readiness,
} from '#agent/health/index.ts'
import { Fault } from '#shared/fault.ts'
import type { FunctionReport } from '#shared/schemas/health.ts'

const log = { debug() {}, info() {}, warn() {} }

const report: FunctionReport = {
  fn: 'site/a',
  release: 'r1-00000000',
  serving: ['r1-00000000'],
  state: 'ready',
  handlers: { ready: 2, starting: 1, restarts: 3 },
  calls: {
    ok: 10,
    failed: 1,
    refused: 2,
    timedOut: 3,
    cancelled: 4,
    retried: 11,
    asyncAccepted: 5,
    asyncDone: 6,
    asyncFailed: 7,
    inFlight: 8,
    queued: 9,
  },
  latencyMs: { p50: 1, p90: 2, p99: 30, max: 400 },
}

async function adminScope() {
  const world = {
    functions: [report] as FunctionReport[],
    engineFault: undefined as { code: string; message: string } | undefined,
    stopping: false,
    lagMs: 3,
  }
  const functions = () => world.functions
  const readiness = new Readiness({
    functions,
    engineFault: () => world.engineFault,
    stopping: () => world.stopping,
  })
  const loopLag = () => ({ p99Ms: world.lagMs, maxMs: world.lagMs })
  const host = new HostSampler({ folder: '/' })
  const admin = await AdminServer.listen({
    host: '127.0.0.1',
    port: 0,
    readiness: () => readiness.view(),
    loopLag,
    metrics: agentMetrics({
      functions,
      generation: () => 12,
      natsConnected: () => true,
      heartbeatsSent: () => 34,
      loopLag,
      host: () => host.sample(1_000),
    }),
    log,
  })
  const get = (path: string, init?: RequestInit) =>
    fetch(`http://127.0.0.1:${admin.port}${path}`, init)
  return { world, get, [Symbol.asyncDispose]: () => admin.close() }
}

describe('the admin port', () => {
  it('/healthz is 200, and 503 when the event loop stood still', async () => {
    await using scope = await adminScope()
    const good = await scope.get('/healthz')
    assert.equal(good.status, 200)
    const body: Record<string, unknown> = JSON.parse(await good.text())
    assert.deepEqual([body['status'], body['eventLoopLagMs']], ['ok', 3])
    scope.world.lagMs = 6_000
    assert.equal((await scope.get('/healthz')).status, 503)
  })

  const reason = { code: 'FUNCTION_LOAD', message: 'no such module' }
  const failed: FunctionReport = { ...report, fn: 'b', serving: [], state: 'failed', reason }
  const starting: FunctionReport = { ...report, fn: 'c', serving: [], state: 'starting' }
  const asleep: FunctionReport = { ...report, fn: 'd', serving: [], state: 'ready' }
  const away = { code: 'ENGINE_UNAVAILABLE', message: 'no answer' }
  const readiness: {
    name: string
    functions: FunctionReport[]
    away?: boolean
    reasons: object[]
  }[] = [
    { name: 'nothing to do', functions: [], reasons: [] },
    { name: 'one of two functions fails', functions: [report, failed], reasons: [] },
    { name: 'all that is asked for sleeps', functions: [asleep], reasons: [] },
    {
      name: 'every function fails',
      functions: [failed],
      reasons: [{ fn: 'b', state: 'failed', ...reason }],
    },
    {
      name: 'a function has not been started yet',
      functions: [report, starting],
      reasons: [{ fn: 'c', state: 'starting' }],
    },
    { name: 'the engine is away, and all serve', functions: [report], away: true, reasons: [] },
    {
      name: 'the engine is away, and one does not serve',
      functions: [report, failed],
      away: true,
      reasons: [{ state: 'engine away', ...away }],
    },
  ]
  for (const row of readiness) {
    it(`/readyz is ${row.reasons.length === 0 ? 200 : 503} when ${row.name}`, async () => {
      await using scope = await adminScope()
      scope.world.functions = row.functions
      scope.world.engineFault = row.away === true ? away : undefined
      const response = await scope.get('/readyz')
      const body: { reasons: unknown; failing: { fn: string }[] } = JSON.parse(
        await response.text(),
      )
      assert.deepEqual(body.reasons, row.reasons)
      assert.equal(response.status, row.reasons.length === 0 ? 200 : 503)
      const down = row.functions.filter(({ fn }) => fn === 'b' || fn === 'c')
      assert.deepEqual(
        body.failing.map(({ fn }) => fn),
        down.map(({ fn }) => fn),
      )
    })
  }

  it('/readyz stays 200 when a function is added later, and is 503 while the agent stops', async () => {
    await using scope = await adminScope()
    assert.equal((await scope.get('/readyz')).status, 200)
    scope.world.functions = [report, starting]
    assert.equal((await scope.get('/readyz')).status, 200)
    scope.world.stopping = true
    assert.equal((await scope.get('/readyz')).status, 503)
  })

  it('/metrics has every number once, and forgets functions that are gone', async () => {
    await using scope = await adminScope()
    for (const time of ['first', 'second']) {
      const text = await (await scope.get('/metrics')).text()
      const wanted = [
        'shoal_invoke_calls_total{fn="site/a",outcome="ok"} 10',
        'shoal_invoke_calls_total{fn="site/a",outcome="timed-out"} 3',
        'shoal_function_down_bool{fn="site/a"} 0',
        'shoal_invoke_retries_total{fn="site/a"} 11',
        'shoal_invoke_latency_seconds{fn="site/a",quantile="0.99"} 0.03',
        'shoal_invoke_latency_seconds{fn="site/a",quantile="1"} 0.4',
        'shoal_invoke_in_flight_calls{fn="site/a"} 8',
        'shoal_invoke_queued_calls{fn="site/a"} 9',
        'shoal_handlers_ready_count{fn="site/a"} 2',
        'shoal_handlers_restarts_total{fn="site/a"} 3',
        'shoal_command_generation_number 12',
        'shoal_nats_connected_bool 1',
        'shoal_heartbeat_sent_total 34',
        'shoal_process_event_loop_lag_seconds{quantile="1"} 0.003',
      ]
      const lines = text.split('\n')
      for (const line of wanted)
        assert.equal(lines.filter((one) => one === line).length, 1, `${time} time: ${line}`)
      for (const name of ['shoal_process_resident_bytes', 'shoal_host_memory_bytes']) {
        const value = Number(lines.find((line) => line.startsWith(`${name} `))?.split(' ')[1])
        assert.ok(value > 1_000_000, name)
      }
    }
    scope.world.functions = []
    assert.doesNotMatch(await (await scope.get('/metrics')).text(), /site\/a/)
  })

  it('answers 404 and 405 in the shape of every fault', async () => {
    await using scope = await adminScope()
    assert.equal((await scope.get('/')).status, 404)
    const response = await scope.get('/metrics', { method: 'POST' })
    assert.equal(response.status, 405)
    assert.equal(JSON.parse(await response.text()).code, 'METHOD_NOT_ALLOWED')
  })

  it('names a port that is taken', async () => {
    const taken = createServer().listen(0, '127.0.0.1')
    await once(taken, 'listening')
    const address = taken.address()
    assert.ok(typeof address === 'object' && address !== null)
    await assert.rejects(
      AdminServer.listen({
        host: '127.0.0.1',
        port: address.port,
        readiness: () => ({ reasons: [], failing: [], functions: 0 }),
        loopLag: () => ({ p99Ms: 0, maxMs: 0 }),
        metrics: new Registry(),
        log,
      }),
      (error: unknown) => Fault.is(error, 'PORT_TAKEN') && /SHOAL_ADMIN_PORT/.test(error.message),
    )
    taken.close()
    await once(taken, 'close')
  })
})

describe('this host', () => {
  it('is sampled from the real procfs, shared by callers at the same time', async () => {
    const sampler = new HostSampler({ folder: '/' })
    const [first, second] = await Promise.all([sampler.sample(100), sampler.sample(100)])
    assert.equal(first, second)
    assert.ok(first.memoryMiB >= first.memoryFreeMiB && first.memoryFreeMiB > 0)
    assert.ok(first.diskMiB >= first.diskFreeMiB && first.diskMiB > 0)
    assert.ok(first.cpuShare >= 0 && first.cpuShare <= 1)
    assert.ok(first.agentRssMiB > 10)
  })

  it('has an inventory, also when its engine does not answer', async () => {
    const reader = new InventoryReader({
      agentVersion: '1.2.3',
      labels: { site: 'north' },
      ports: { http: 8000, coap: 0, grpc: 0 },
      engine: {
        kind: 'docker',
        version: () => Promise.reject(new Fault('ENGINE_UNAVAILABLE', 'away')),
        runtimes: async () => ['nodejs'],
      },
      log,
    })
    const inventory = await reader.read()
    assert.deepEqual([inventory.agentVersion, inventory.engineVersion], ['1.2.3', 'unknown'])
    assert.ok(inventory.cores > 0 && inventory.memoryMiB > 0)
    assert.notEqual(inventory.os, '')
  })
})
