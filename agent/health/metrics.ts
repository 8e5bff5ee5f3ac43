import { readdir } from 'node:fs/promises'
import {
  Counter,
  Gauge,
  Registry,
  type CounterConfiguration,
  type GaugeConfiguration,
} from 'prom-client'
import type { FunctionReport } from '#shared/schemas/health.ts'
import type { HostSample } from './host-sampler.ts'
import { workersUsage } from './workers-usage.ts'
import type { LoopLag } from './loop-monitor.ts'
import { notServing } from './readiness.ts'

/** Where the numbers come from; read when somebody asks for them, never before. */
export interface MetricSources {
  readonly functions: () => readonly FunctionReport[]
  readonly generation: () => number
  readonly natsConnected: () => boolean
  readonly heartbeatsSent: () => number
  readonly loopLag: () => LoopLag
  readonly host: () => Promise<HostSample>
  /** Processes of the agent beside this one; default: none. */
  readonly workers?: () => readonly number[]
}

const OUTCOMES = [
  ['ok', 'ok'],
  ['failed', 'failed'],
  ['refused', 'refused'],
  ['timedOut', 'timed-out'],
  ['cancelled', 'cancelled'],
  ['asyncAccepted', 'async-accepted'],
  ['asyncDone', 'async-done'],
  ['asyncFailed', 'async-failed'],
] as const

/** All metrics of the agent. Those of a function go when it goes. */
export function agentMetrics(sources: MetricSources): Registry {
  const registry = new Registry()
  functionMetrics(registry, sources)
  processMetrics(registry, sources)
  hostMetrics(registry, sources)
  return registry
}

function functionMetrics(registry: Registry, { functions }: MetricSources): void {
  const labelNames = ['fn'] as const
  functionCounters(registry, functions)
  addGauge(registry, {
    name: 'shoal_function_down_bool',
    help: '1: no release of the function answers calls',
    labelNames,
    collect() {
      this.reset()
      const down = new Set(notServing(functions()).map(({ fn }) => fn))
      for (const { fn } of functions()) this.set({ fn }, down.has(fn) ? 1 : 0)
    },
  })
  addGauge(registry, {
    name: 'shoal_invoke_latency_seconds',
    help: 'Latency of the calls that ended in about the last minute; quantile 1 is the slowest',
    labelNames: ['fn', 'quantile'],
    collect() {
      this.reset()
      for (const { fn, latencyMs } of functions()) {
        if (latencyMs === undefined) continue
        const { p50, p90, p99, max } = latencyMs
        for (const [quantile, ms] of Object.entries({ 0.5: p50, 0.9: p90, 0.99: p99, 1: max })) {
          this.set({ fn, quantile }, ms / 1000)
        }
      }
    },
  })
  const gauge = (name: string, help: string, of: (report: FunctionReport) => number): void => {
    addGauge(registry, {
      name,
      help,
      labelNames,
      collect() {
        this.reset()
        for (const report of functions()) this.set({ fn: report.fn }, of(report))
      },
    })
  }
  gauge('shoal_invoke_in_flight_calls', 'Calls that run now', ({ calls }) => calls.inFlight)
  gauge('shoal_invoke_queued_calls', 'Calls that wait for a handler', ({ calls }) => calls.queued)
  gauge('shoal_handlers_ready_count', 'Handlers that take calls', ({ handlers }) => handlers.ready)
  gauge(
    'shoal_handlers_starting_count',
    'Handlers on their way',
    ({ handlers }) => handlers.starting,
  )
  gauge(
    'shoal_handlers_paused_count',
    'Handlers that sleep, or are kept of the release before',
    ({ handlers }) => handlers.paused ?? 0,
  )
  gauge(
    'shoal_handlers_draining_count',
    'Replaced handlers that still finish calls',
    ({ handlers }) => handlers.draining ?? 0,
  )
  gauge('shoal_function_serving_bool', '1 while any release answers', ({ serving }) =>
    serving.length > 0 ? 1 : 0,
  )
}

function functionCounters(registry: Registry, functions: MetricSources['functions']): void {
  const labelNames = ['fn'] as const
  addCounter(registry, {
    name: 'shoal_invoke_calls_total',
    help: 'Calls ended since the agent started, by outcome',
    labelNames: ['fn', 'outcome'],
    collect() {
      this.reset()
      for (const { fn, calls } of functions()) {
        for (const [key, outcome] of OUTCOMES) this.inc({ fn, outcome }, calls[key])
      }
    },
  })
  addCounter(registry, {
    name: 'shoal_invoke_retries_total',
    help: 'Calls of idempotent functions sent once more because their handler ended',
    labelNames,
    collect() {
      this.reset()
      for (const { fn, calls } of functions()) this.inc({ fn }, calls.retried ?? 0)
    },
  })
  addCounter(registry, {
    name: 'shoal_handlers_restarts_total',
    help: 'Unplanned ends of handlers since the agent started',
    labelNames,
    collect() {
      this.reset()
      for (const { fn, handlers } of functions()) this.inc({ fn }, handlers.restarts)
    },
  })
}

function processMetrics(registry: Registry, sources: MetricSources): void {
  const gauge = gaugeIn(registry)
  gauge('shoal_command_generation_number', 'Generation of the command kept, 0 for none', () =>
    sources.generation(),
  )
  gauge('shoal_nats_connected_bool', '1 while the broker can be reached', () =>
    sources.natsConnected() ? 1 : 0,
  )
  const workers = () => workersUsage(sources.workers?.() ?? [])
  gauge(
    'shoal_process_resident_bytes',
    'Resident memory of the agent and its workers',
    async () => {
      return process.memoryUsage.rss() + (await workers()).residentBytes
    },
  )
  gauge(
    'shoal_process_workers_count',
    'Processes of the agent for HTTP, CoAP and gRPC; 0: this one',
    () => sources.workers?.().length ?? 0,
  )
  gauge('shoal_process_heap_bytes', 'JavaScript heap in use', () => process.memoryUsage().heapUsed)
  gauge('shoal_process_open_descriptors_count', 'Open file descriptors', async () => {
    // One of them is that of this very listing.
    return (await readdir('/proc/self/fd')).length - 1
  })
  gauge('shoal_process_uptime_seconds', 'Since the agent started', () => process.uptime())
  addCounter(registry, {
    name: 'shoal_process_cpu_seconds_total',
    help: 'CPU time used by the agent and the workers that it has now',
    async collect() {
      const { cpuSeconds } = await workers()
      const { user, system } = process.cpuUsage()
      this.reset()
      this.inc((user + system) / 1e6 + cpuSeconds)
    },
  })
  addCounter(registry, {
    name: 'shoal_heartbeat_sent_total',
    help: 'Heartbeats handed to the broker',
    collect() {
      this.reset()
      this.inc(sources.heartbeatsSent())
    },
  })
  addGauge(registry, {
    name: 'shoal_process_event_loop_lag_seconds',
    help: 'How late the event loop was in the last seconds; quantile 1 is the worst',
    labelNames: ['quantile'],
    collect() {
      const { p99Ms, maxMs } = sources.loopLag()
      this.set({ quantile: '0.99' }, p99Ms / 1000)
      this.set({ quantile: '1' }, maxMs / 1000)
    },
  })
}

function hostMetrics(registry: Registry, { host }: MetricSources): void {
  const values = [
    ['shoal_host_cpu_share', 'Share of all cores in use since the last heartbeat', 'cpuShare', 1],
    ['shoal_host_load_count', 'Load average of the last minute', 'load1', 1],
    ['shoal_host_memory_bytes', 'Memory of the host', 'memoryMiB', 2 ** 20],
    ['shoal_host_memory_free_bytes', 'Memory available', 'memoryFreeMiB', 2 ** 20],
    ['shoal_host_disk_bytes', "Size of the data folder's disk", 'diskMiB', 2 ** 20],
    ['shoal_host_disk_free_bytes', "Free space of the data folder's disk", 'diskFreeMiB', 2 ** 20],
  ] as const
  for (const [name, help, key, factor] of values) {
    gaugeIn(registry)(name, help, async () => (await host())[key] * factor)
  }
}

function gaugeIn(registry: Registry) {
  return (name: string, help: string, value: () => number | Promise<number>): void => {
    addGauge(registry, {
      name,
      help,
      async collect() {
        this.set(await value())
      },
    })
  }
}

function addCounter<L extends string>(registry: Registry, config: CounterConfiguration<L>): void {
  // Without `registers` it would also go into the library's global registry.
  registry.registerMetric(new Counter({ ...config, registers: [] }))
}

function addGauge<L extends string>(registry: Registry, config: GaugeConfiguration<L>): void {
  registry.registerMetric(new Gauge({ ...config, registers: [] }))
}
