/**
 * How this node is: host samples, heartbeats, the deep probe, inventory, and the admin port.
 *
 * Depends on: `#shared`, prom-client, systeminformation. Used by: `agent/main.ts`.
 *
 * @module
 */
export { AdminServer } from './admin-server.ts'
export type { AdminServerOptions } from './admin-server.ts'
export { HeartbeatBuilder, HeartbeatLoop } from './heartbeat.ts'
export type { HealthSources, HeartbeatLoopOptions } from './heartbeat.ts'
export { cpuShare, HostSampler, parseCpuTimes, parseMemory } from './host-sampler.ts'
export type { HostSample, HostSamplerOptions } from './host-sampler.ts'
export { hostArch, InventoryReader } from './inventory.ts'
export type { InventoryOptions } from './inventory.ts'
export type { HealthLog } from './log.ts'
export { LoopMonitor } from './loop-monitor.ts'
export type { LoopLag } from './loop-monitor.ts'
export { agentMetrics } from './metrics.ts'
export type { MetricSources } from './metrics.ts'
export { Prober } from './prober.ts'
export type { ProbeResult, ProberOptions } from './prober.ts'
export { notServing, Readiness } from './readiness.ts'
export type { NotReady, ReadinessSources, ReadinessView } from './readiness.ts'
export { StateWatch } from './state-watch.ts'
export type { StateWatchOptions } from './state-watch.ts'
