import type { FastifyInstance } from 'fastify'
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { ApiServices } from './services.ts'

const DURATIONS = [0.005, 0.02, 0.1, 0.5, 2, 10, 60]

/** Metrics of this process, read from the parts when asked for. */
export function createMetrics(services: () => ApiServices): Registry {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const gauges: Record<string, readonly [help: string, read: () => number | Promise<number>]> = {
    nodes_count: ['Enrolled nodes', async () => (await services().store.nodes()).length],
    nodes_online_count: [
      'Nodes whose heartbeats arrive',
      () => services().fleet.liveness.onlineCount(),
    ],
    functions_count: [
      'Functions in the catalogue',
      async () => (await services().store.functions()).length,
    ],
    rollouts_open_count: [
      'Rollouts rolling or waiting',
      async () => (await services().store.rollouts({ open: true, limit: 1_000 })).length,
    ],
    nats_connected_count: ['1 while connected to NATS', () => (services().bus.connected ? 1 : 0)],
  }
  for (const [name, [help, read]] of Object.entries(gauges)) {
    registry.registerMetric(
      new Gauge({
        name: `shoal_controller_${name}`,
        help,
        registers: [],
        async collect() {
          this.set(await read())
        },
      }),
    )
  }
  const counters: Record<string, readonly [help: string, read: () => number]> = {
    heartbeats: ['Heartbeats taken', () => services().fleet.counts.heartbeats],
    hellos: ['Hellos answered', () => services().fleet.counts.hellos],
    rejected_messages: ['Messages not taken', () => services().fleet.counts.rejected],
    repairs: ['Beats that showed another state than told', () => services().fleet.counts.repairs],
    commands_accepted: ['Commands nodes kept', () => services().fleet.dispatcher.counts.accepted],
    commands_refused: ['Commands refused', () => services().fleet.dispatcher.counts.refused],
    commands_failed: ['Commands not delivered', () => services().fleet.dispatcher.counts.failed],
  }
  for (const [name, [help, read]] of Object.entries(counters)) {
    registry.registerMetric(
      new Counter({
        name: `shoal_controller_${name}_total`,
        help,
        registers: [],
        collect() {
          this.reset()
          this.inc(read())
        },
      }),
    )
  }
  return registry
}

/** Measures every request by route, never by URL: names of functions are no labels. */
export function measureRequests(app: FastifyInstance, registry: Registry): void {
  const durations = new Histogram({
    name: 'shoal_api_request_duration_seconds',
    help: 'Time to the end of the answer',
    labelNames: ['method', 'route', 'status'],
    buckets: DURATIONS,
    registers: [registry],
  })
  app.addHook('onResponse', (request, reply, done) => {
    durations.observe(
      {
        method: request.method,
        route: request.routeOptions.url ?? 'none',
        status: `${Math.floor(reply.statusCode / 100)}xx`,
      },
      reply.elapsedTime / 1_000,
    )
    done()
  })
}
