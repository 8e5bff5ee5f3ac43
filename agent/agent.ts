import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import {
  LogBook,
  NatsArtifactSource,
  NatsLink,
  NodeService,
  type CommandKeeper,
  type Identity,
  type TrustKeeper,
} from '#agent/command/index.ts'
import { memoryBudgetMiB, type LoadedConfig } from '#agent/config/index.ts'
import { BundleStore, type Engine } from '#agent/handlers/index.ts'
import { OwnFronts, WorkerFronts, type Fronts } from '#agent/fronts/index.ts'
import {
  AdminServer,
  agentMetrics,
  HeartbeatBuilder,
  HeartbeatLoop,
  HostSampler,
  InventoryReader,
  LoopMonitor,
  Prober,
  Readiness,
  StateWatch,
} from '#agent/health/index.ts'
import { InvokeRouter } from '#agent/invoke/index.ts'
import { room } from '#agent/sockets/index.ts'
import { Reconciler } from '#agent/reconcile/index.ts'
import type { Clock } from '#shared/clock.ts'
import { LOG_KEYS } from '#shared/log-keys.ts'
import type { NodeCommand } from '#shared/schemas/command.ts'
import { subjects } from '#shared/subjects.ts'
import { frontSettings } from './doors.ts'
import packageFile from '../package.json' with { type: 'json' }

/** Kept functions are routed within milliseconds; an engine that is away must not keep the ports closed. */
const ROUTED_WITHIN_MS = 1_000
const HOST_SAMPLE_AGE_MS = 1_000
/** Bodies kept for calls in the background. */
const ASYNC_BYTES_MAX = 64 * 1024 * 1024

/** What is open before the first command is known. */
export interface Base {
  readonly config: LoadedConfig
  readonly log: Logger
  readonly clock: Clock
  readonly identity: Identity
  readonly trust: TrustKeeper
  readonly keeper: CommandKeeper
  readonly installation: string
}

/**
 * One agent, from the kept command to the open doors. With `main.ts` the only file that knows every part.
 */
export class Agent implements AsyncDisposable {
  readonly #base: Base
  readonly #router: InvokeRouter
  readonly #logs: LogBook
  readonly #link: NatsLink
  readonly #service: NodeService
  readonly #inventory: InventoryReader
  readonly #reconciler: Reconciler
  readonly #watch: StateWatch
  readonly #heartbeat: HeartbeatLoop
  readonly #prober: Prober
  readonly #loop = new LoopMonitor()
  readonly #host: HostSampler
  readonly #ports = { http: 0, coap: 0, grpc: 0 }
  #fronts: Fronts | undefined
  #admin: AdminServer | undefined
  #closing: Promise<void> | undefined
  readonly #removed = Promise.withResolvers<void>()

  private constructor(
    base: Base,
    engine: Engine,
    parts: {
      readonly router: InvokeRouter
      readonly logs: LogBook
      readonly link: NatsLink
      readonly reconciler: Reconciler
      readonly watch: StateWatch
    },
  ) {
    const { config, log, clock, identity } = base
    this.#base = base
    this.#router = parts.router
    this.#logs = parts.logs
    this.#link = parts.link
    this.#reconciler = parts.reconciler
    this.#watch = parts.watch
    const health = log.child({ [LOG_KEYS.part]: 'health' })
    this.#host = new HostSampler({ folder: config.agentData })
    this.#inventory = new InventoryReader({
      agentVersion: packageFile.version,
      labels: config.nodeLabels ?? {},
      ports: this.#ports,
      engine,
      log: health,
    })
    this.#prober = Prober.start({
      everyMs: config.probeEveryMs,
      probe: (signal) => engine.probe(signal),
      clock,
      log: health,
    })
    this.#heartbeat = this.#startHeartbeat(health)
    this.#service = new NodeService({
      node: identity.node,
      keeper: base.keeper,
      trust: base.trust,
      invoker: parts.router,
      logs: parts.logs,
      inventory: () => this.#inventory.read(),
      onCommand: (command) => this.#take(command),
      onRemoved: () => this.#removed.resolve(),
      log: log.child({ [LOG_KEYS.part]: 'command' }),
    })
    this.#service.attach(parts.link)
  }

  /** Opens bundles and handlers and serves the kept command. @throws Fault `STORAGE`, `CONFIG_INVALID` */
  static async open(base: Base, engine: Engine): Promise<Agent> {
    const { config, log, clock, identity } = base
    const child = (part: string): Logger => log.child({ [LOG_KEYS.part]: part })
    const inside = (name: string): string => join(config.agentData, name)
    const logs = await LogBook.open({ folder: inside('logs'), log: child('logs') })
    const router = new InvokeRouter({
      log: child('invoke'),
      callsMax: config.callsMax,
      busyPollMicros: config.busyPollMicros,
      asyncBytesMax: Math.min(ASYNC_BYTES_MAX, room.bodyBytes),
    })
    // The callbacks run later, when the agent that they name is there.
    const link = new NatsLink({
      identity,
      onConnection: (connection) => agent.#service.connected(connection),
      onUp: () => agent.#up(),
      log: child('nats'),
    })
    const source = await NatsArtifactSource.open({
      folder: inside('artifacts'),
      link,
      log: child('artifacts'),
    })
    const bundles = await BundleStore.open({ folder: inside('bundles'), source })
    const reconciler = await Reconciler.start({
      engine,
      router,
      bundles,
      folder: inside('h'),
      clock,
      log: child('reconcile'),
      onLog: (line) => logs.add(line),
      onStarted: () => agent.#watch.stir(),
      bodyBytesMax: config.bodyBytesMax,
      drainMs: config.drainMs,
      keepMs: config.keepMs,
      memoryBudgetMiB: memoryBudgetMiB(config.memoryBudget),
      spares: config.spares,
    })
    const watch: StateWatch = new StateWatch({
      functions: () => reconciler.report(),
      onChange: () => agent.#heartbeat.wake(),
    })
    const agent = new Agent(base, engine, { router, logs, link, reconciler, watch })
    if (base.keeper.command !== undefined) agent.#take(base.keeper.command, true)
    return agent
  }

  /**
   * Opens the ports, then looks for the broker.
   *
   * @returns the ports that are open, 0 for those that are off
   * @throws Fault `PORT_TAKEN`, `CONFIG_INVALID`
   */
  async openDoors(): Promise<{ http: number; coap: number; grpc: number; admin: number }> {
    const { config, log } = this.#base
    await this.#routed()
    const { workers } = config
    const options = { ...frontSettings(config), invoker: this.#router, log }
    this.#fronts =
      workers === 1
        ? await OwnFronts.open(options)
        : await WorkerFronts.open({ ...options, workers })
    Object.assign(this.#ports, this.#fronts.ports)
    if (config.adminPort >= 0) this.#admin = await this.#openAdmin()
    this.#link.start()
    return { ...this.#ports, admin: this.#admin?.port ?? 0 }
  }

  /** Resolves when the controller has said that this node is no longer of its fleet. */
  get removed(): Promise<void> {
    return this.#removed.promise
  }

  /**
   * Refuses new work, lets calls end, sends a last heartbeat, closes.
   *
   * @param removeHandlers - or they go on, for the next agent; default: what the config says
   */
  close(removeHandlers = this.#base.config.removeHandlers): Promise<void> {
    this.#closing ??= this.#close(removeHandlers)
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(removeHandlers: boolean): Promise<void> {
    const { drainMs } = this.#base.config
    const doors = this.#fronts?.close(drainMs)
    await Promise.all([doors, this.#router.close(drainMs), this.#service.close()])
    await Promise.all([this.#reconciler.close({ removeHandlers }), this.#prober.close()])
    this.#watch[Symbol.dispose]()
    await this.#heartbeat.close()
    await this.#link.close()
    await Promise.all([this.#admin?.close(), this.#logs.close()])
    this.#loop[Symbol.dispose]()
  }

  /** @param kept - it was taken before, by an earlier agent */
  #take(command: NodeCommand, kept = false): void {
    this.#reconciler.setDesired(command.functions, kept)
    this.#watch.stir()
    this.#heartbeat.wake()
    this.#logs.retain(command.functions.map(({ fn }) => fn)).catch((error: unknown) => {
      this.#base.log.warn({ [LOG_KEYS.err]: error }, 'old function logs not removed')
    })
  }

  #up(): void {
    this.#service.up()
    this.#heartbeat.wake()
  }

  /** Callers of kept functions must not hear "unknown" only because the agent has just started. */
  async #routed(): Promise<void> {
    const wanted = this.#base.keeper.command?.functions.length ?? 0
    const untilMs = performance.now() + ROUTED_WITHIN_MS
    while (this.#router.names().length < wanted && performance.now() < untilMs) await sleep(5)
  }

  #startHeartbeat(log: Logger): HeartbeatLoop {
    const { identity, keeper, config, clock } = this.#base
    const builder = new HeartbeatBuilder({
      node: identity.node,
      clock,
      command: () => keeper.command,
      refusal: () => keeper.refusal,
      functions: () => this.#reconciler.report(),
      host: () => this.#host.sample(HOST_SAMPLE_AGE_MS),
      probe: () => this.#prober.result,
      everyMs: config.heartbeatMs,
    })
    const subject = subjects.health(identity.node)
    return HeartbeatLoop.start({
      intervalMs: config.heartbeatMs,
      connected: () => this.#link.connected,
      build: () => builder.build(),
      publish: (heartbeat) => this.#link.publish(subject, JSON.stringify(heartbeat)),
      log,
    })
  }

  #openAdmin(): Promise<AdminServer> {
    const { config, keeper, log } = this.#base
    const functions = () => this.#reconciler.report()
    const loopLag = () => this.#loop.lag
    const readiness = new Readiness({
      functions,
      engineFault: () => this.#reconciler.engineFault,
      stopping: () => this.#closing !== undefined,
      blocked: () => this.#fronts?.blocked,
    })
    return AdminServer.listen({
      host: config.adminHost,
      port: config.adminPort,
      readiness: () => readiness.view(),
      loopLag,
      metrics: agentMetrics({
        functions,
        generation: () => keeper.generation,
        natsConnected: () => this.#link.connected,
        heartbeatsSent: () => this.#heartbeat.sent,
        loopLag,
        host: () => this.#host.sample(HOST_SAMPLE_AGE_MS),
        workers: () => this.#fronts?.pids ?? [],
      }),
      log: log.child({ [LOG_KEYS.part]: 'admin' }),
    })
  }
}
