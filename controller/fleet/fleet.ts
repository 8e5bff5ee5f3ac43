import type { Logger } from 'pino'
import { Compile } from 'typebox/compile'
import type { Clock } from '#shared/clock.ts'
import { Fault } from '#shared/fault.ts'
import { LOG_KEYS } from '#shared/log-keys.ts'
import type { NodeView } from '#shared/schemas/api.ts'
import { Heartbeat, Hello } from '#shared/schemas/health.ts'
import type { HelloReply } from '#shared/schemas/wire.ts'
import { CONTROLLERS, subjects } from '#shared/subjects.ts'
import type { EventHub } from '../events/index.ts'
import type { NodeRow, Store } from '../store/index.ts'
import type { Bus, BusRequest } from './bus.ts'
import { Commands, type CommandSigner } from './commands.ts'
import { Dispatcher } from './dispatcher.ts'
import { Liveness, TICK_MS } from './liveness.ts'
import { viewOf, type NodeFacts } from './node-view.ts'
import { applyPlacements } from './placement.ts'

/** `lastSeenMs` goes to SQL this often: after a restart it says roughly when a node was last there. */
const PERSIST_SEEN_MS = 60_000
/** In one reply; the next hello brings the rest. */
const TRUST_DOCUMENTS_MAX = 16
const helloValidator = Compile(Hello)
const heartbeatValidator = Compile(Heartbeat)

export interface FleetOptions {
  readonly store: Store
  readonly bus: Bus
  readonly signer: CommandSigner
  readonly events: EventHub
  readonly clock: Clock
  readonly log: Logger
  /** How often agents are told to beat; three missed beats make a node offline. */
  readonly heartbeatMs: number
  readonly commandExpiresMs?: number
  /** A number from 0 to 1; default `Math.random`. */
  readonly random?: () => number
}

export interface FleetCounts {
  heartbeats: number
  hellos: number
  /** Messages that could not be read, or were not the sender's to send. */
  rejected: number
  repairs: number
}

/** All nodes: who is there, what each was told, what each says; brings them what they lack. */
export class Fleet {
  readonly commands: Commands
  readonly dispatcher: Dispatcher
  readonly liveness: Liveness
  readonly counts: FleetCounts = { heartbeats: 0, hellos: 0, rejected: 0, repairs: 0 }
  readonly #options: FleetOptions
  readonly #unsubscribe: (() => void)[]
  readonly #listeners = new Set<(node: string) => void>()
  readonly #persistedSeenMs = new Map<string, number>()
  readonly #work = new Set<Promise<void>>()
  readonly #timer: NodeJS.Timeout

  constructor(options: FleetOptions) {
    this.#options = options
    const { store, bus, signer, clock, log, heartbeatMs, commandExpiresMs } = options
    this.liveness = new Liveness({ heartbeatMs, nowMs: clock.nowMs() })
    this.commands = new Commands({
      store,
      signer,
      clock,
      ...(commandExpiresMs === undefined ? {} : { expiresMs: commandExpiresMs }),
    })
    this.dispatcher = new Dispatcher({
      bus,
      clock,
      log,
      commands: this.commands,
      liveness: this.liveness,
      random: options.random ?? Math.random,
      onChange: (node) => this.#changed(node),
    })
    this.#unsubscribe = [
      bus.subscribe(subjects.helloAll, (message) => this.#start(this.#onHello(message)), {
        queue: CONTROLLERS,
      }),
      bus.subscribe(subjects.healthAll, (message) => this.#start(this.#onHeartbeat(message))),
    ]
    this.#timer = setInterval(() => this.#tick(), TICK_MS)
    this.#timer.unref()
  }

  /** Hears of every node whose state, command or report may have changed. */
  onChange(listener: (node: string) => void): () => void {
    this.#listeners.add(listener)
    return () => {
      this.#listeners.delete(listener)
    }
  }

  /** Something has happened to this node elsewhere: it has joined, or its assignments have changed. */
  touch(node: string): void {
    this.dispatcher.poke(node)
    this.#changed(node)
  }

  /** The connection is back: every node gets what it lacks, and time to be heard. */
  async reconnected(): Promise<void> {
    this.liveness.reconnected(this.#options.clock.nowMs())
    for (const {
      node,
      generation,
      acceptedGeneration,
    } of await this.#options.store.nodeCommands()) {
      if (acceptedGeneration !== generation) this.dispatcher.poke(node)
    }
  }

  async facts(node: string): Promise<NodeFacts | undefined> {
    const row = await this.#options.store.node(node)
    if (row === undefined || row.deletedAtMs !== undefined) return undefined
    return this.#factsOf(row)
  }

  async allFacts(): Promise<NodeFacts[]> {
    const rows = await this.#options.store.nodes()
    return Promise.all(rows.map((row) => this.#factsOf(row)))
  }

  async view(node: string): Promise<NodeView> {
    const facts = await this.facts(node)
    if (facts === undefined) throw new Fault('NODE_UNKNOWN', `there is no node ${node}`, { node })
    return viewOf(facts)
  }

  async views(): Promise<NodeView[]> {
    return (await this.allFacts()).map((facts) => viewOf(facts))
  }

  /**
   * Takes a node out: it is told to run nothing (when it is there) and no longer counts. Its id stays taken.
   *
   * @throws Fault `NODE_UNKNOWN`
   */
  async delete(node: string, waitMs: number, signal?: AbortSignal): Promise<void> {
    const { store, clock, events } = this.#options
    await store.transaction(async (tx) => {
      const row = await tx.node(node)
      if (row === undefined || row.deletedAtMs !== undefined) {
        throw new Fault('NODE_UNKNOWN', `there is no node ${node}`, { node })
      }
      await tx.deleteAssignments({ node })
    })
    this.touch(node)
    if (this.liveness.get(node)?.online === true) {
      await this.waitUntilKept([node], waitMs, signal)
    }
    await store.transaction(async (tx) => {
      const row = await tx.node(node)
      if (row === undefined) return
      // Something may have been placed there meanwhile.
      await tx.deleteAssignments({ node })
      await tx.putNode({ ...row, deletedAtMs: clock.nowMs() })
    })
    this.dispatcher.forget(node)
    this.liveness.forget(node)
    events.publish({ type: 'node-deleted', node })
    for (const listener of this.#listeners) listener(node)
  }

  /**
   * Waits until the nodes keep, and report to run, exactly what they are assigned.
   *
   * @returns nodes that did not get there in time; offline ones are not waited for
   */
  async waitUntilKept(
    nodes: readonly string[],
    waitMs: number,
    signal?: AbortSignal,
  ): Promise<string[]> {
    const deadlineMs = this.#options.clock.nowMs() + waitMs
    const changed = new Set(nodes)
    let wake: (() => void) | undefined
    const unsubscribe = this.onChange((node) => {
      changed.add(node)
      wake?.()
    })
    const left = new Set(nodes)
    try {
      for (;;) {
        for (const node of left) {
          if (changed.delete(node) && (await this.#isKept(node))) left.delete(node)
        }
        const remainingMs = deadlineMs - this.#options.clock.nowMs()
        const present = [...left].some((node) => this.#presence(node) !== 'offline')
        if (!present || remainingMs <= 0 || signal?.aborted === true) return [...left].toSorted()
        if ([...left].some((node) => changed.has(node))) continue
        const woken = Promise.withResolvers<void>()
        wake = woken.resolve
        const timer = setTimeout(wake, Math.min(remainingMs, 1_000))
        await woken.promise
        clearTimeout(timer)
      }
    } finally {
      unsubscribe()
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    for (const unsubscribe of this.#unsubscribe) unsubscribe()
    await this.dispatcher.close()
    await Promise.all(this.#work)
  }

  #presence(node: string): 'online' | 'offline' | 'unknown' {
    return this.liveness.presence(node, this.#options.clock.nowMs())
  }

  async #factsOf(row: NodeRow): Promise<NodeFacts> {
    return {
      row,
      command: await this.#options.store.nodeCommand(row.id),
      life: this.liveness.get(row.id),
      presence: this.#presence(row.id),
      sentGeneration: this.dispatcher.sentGeneration(row.id),
    }
  }

  /** True when the node keeps its newest command and its report shows nothing that is not in it. */
  async #isKept(node: string): Promise<boolean> {
    const { store } = this.#options
    const command = await store.nodeCommand(node)
    const life = this.liveness.get(node)
    const assigned = await store.assignments({ node })
    if (command === undefined) return assigned.length === 0
    const beat = life?.heartbeat
    if (beat === undefined || life?.online !== true) return false
    const wanted = new Set(assigned.map(({ fn }) => fn))
    return (
      command.acceptedGeneration === command.generation &&
      beat.generation >= command.generation &&
      beat.functions.every(({ fn }) => wanted.has(fn))
    )
  }

  async #onHello(message: BusRequest): Promise<void> {
    const hello = parse(message.data)
    const node = nodeOf(message.subject)
    if (!helloValidator.Check(hello) || hello.node !== node) return this.#reject(message, 'hello')
    // A reply goes to the node's own inbox, or this would publish for it wherever it names.
    if (message.replyTo?.startsWith(`${subjects.inbox(node)}.`) !== true) {
      return this.#reject(message, 'hello')
    }
    const { store, signer, clock, log } = this.#options
    const nowMs = clock.nowMs()
    const known = await store.transaction(async (tx) => {
      const row = await tx.node(node)
      if (row === undefined) return undefined
      if (row.deletedAtMs !== undefined) return 'removed'
      const { inventory } = hello
      const { arch, labels } = inventory
      const next: NodeRow = { ...row, arch, labels, inventory, lastSeenMs: nowMs }
      await tx.putNode(next)
      return applyPlacements(tx, [next])
    })
    if (known === undefined) return this.#reject(message, 'hello of a node that is not enrolled')
    if (known === 'removed') return this.#farewell(message, hello)
    for (const { fn, fault } of known.unplaced) {
      log.warn({ [LOG_KEYS.node]: node, [LOG_KEYS.fn]: fn, err: fault }, 'function not placed')
    }
    this.counts.hellos += 1
    const back = this.liveness.hello(node, hello.generation, nowMs)
    const command = await this.commands.ensure(node, { generation: hello.generation })
    await this.commands.keptBy(node, hello.generation)
    const news = command !== undefined && command.generation > hello.generation
    const trust = signer.trustChain(hello.trustVersion ?? 0).slice(0, TRUST_DOCUMENTS_MAX)
    const reply: HelloReply = {
      ...(news ? { command: command.envelope } : {}),
      ...(hello.trustVersion === undefined || trust.length === 0 ? {} : { trust }),
    }
    message.respond(new TextEncoder().encode(JSON.stringify(reply)))
    if (news) this.dispatcher.noteSent(node, command.generation)
    log.info(
      {
        [LOG_KEYS.node]: node,
        generation: hello.generation,
        ...(news ? { sentGeneration: command.generation } : {}),
      },
      back ? 'node is online' : 'node said hello',
    )
    this.#changed(node)
  }

  /** A node that was away when it was removed: it gets the command to run nothing, signed like any other. */
  async #farewell(message: BusRequest, { node, generation }: Hello): Promise<void> {
    const command = await this.commands.ensure(node, { generation })
    await this.commands.keptBy(node, generation)
    const news = command !== undefined && command.generation > generation
    const reply: HelloReply = { removed: true, ...(news ? { command: command.envelope } : {}) }
    message.respond(new TextEncoder().encode(JSON.stringify(reply)))
    this.#options.log.info({ [LOG_KEYS.node]: node }, 'hello of a node that was removed')
  }

  async #onHeartbeat(message: BusRequest): Promise<void> {
    const beat = parse(message.data)
    const node = nodeOf(message.subject)
    if (!heartbeatValidator.Check(beat) || beat.node !== node) {
      return this.#reject(message, 'heartbeat')
    }
    const { store, clock, log } = this.#options
    const nowMs = clock.nowMs()
    const row = await store.node(node)
    if (row === undefined || row.deletedAtMs !== undefined) {
      return this.#reject(message, 'heartbeat of a node that is not enrolled')
    }
    this.counts.heartbeats += 1
    const outcome = this.liveness.beat(beat, nowMs)
    if (outcome.back) log.info({ [LOG_KEYS.node]: node }, 'node is online')
    if (outcome.kind === 'stale') return
    if (outcome.newBoot) log.info({ [LOG_KEYS.node]: node }, 'agent was started again')
    if (outcome.missed > 0) {
      log.warn({ [LOG_KEYS.node]: node, missed: outcome.missed }, 'heartbeats got lost')
    }
    await this.commands.keptBy(node, beat.generation)
    await this.#repair(beat)
    await this.#persistSeen(row, nowMs)
    this.#changed(node)
  }

  /** Truth never depends on a message having arrived: what a node says it keeps is compared, and put right. */
  async #repair({ node, generation, stateDigest }: Heartbeat): Promise<void> {
    const command = await this.#options.store.nodeCommand(node)
    const wrong =
      command === undefined
        ? generation > 0
        : generation !== command.generation || stateDigest !== command.stateDigest
    if (!wrong) return
    this.counts.repairs += 1
    this.dispatcher.poke(node, { patient: true })
  }

  async #persistSeen(row: NodeRow, nowMs: number): Promise<void> {
    const last = this.#persistedSeenMs.get(row.id) ?? row.lastSeenMs
    if (nowMs - last < PERSIST_SEEN_MS) return
    this.#persistedSeenMs.set(row.id, nowMs)
    await this.#options.store.transaction(async (tx) => {
      const now = await tx.node(row.id)
      if (now !== undefined) await tx.putNode({ ...now, lastSeenMs: nowMs })
    })
  }

  #tick(): void {
    for (const node of this.liveness.tick(this.#options.clock.nowMs())) {
      this.#options.log.warn({ [LOG_KEYS.node]: node }, 'node is offline: no heartbeats')
      this.#changed(node)
    }
  }

  #reject({ subject }: BusRequest, what: string): void {
    this.counts.rejected += 1
    this.#options.log.debug({ subject, what }, 'message not taken')
  }

  #changed(node: string): void {
    for (const listener of this.#listeners) listener(node)
    if (this.#options.events.wanted) this.#start(this.#announce(node))
  }

  async #announce(node: string): Promise<void> {
    const facts = await this.facts(node)
    if (facts !== undefined) this.#options.events.publish({ type: 'node', node: viewOf(facts) })
  }

  #start(work: Promise<void>): void {
    const watched = work.catch((error: unknown) => {
      if (Fault.is(error, 'SHUTTING_DOWN')) return
      this.#options.log.error({ err: error }, 'message of a node not handled')
    })
    this.#work.add(watched)
    void watched.finally(() => this.#work.delete(watched))
  }
}

/** Last token of `shoal.v1.hello.<id>` and `shoal.v1.health.<id>`. */
function nodeOf(subject: string): string {
  return subject.slice(subject.lastIndexOf('.') + 1)
}

function parse(data: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(data))
  } catch {
    return undefined
  }
}
