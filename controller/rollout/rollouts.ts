import { randomUUID } from 'node:crypto'
import type { Logger } from 'pino'
import type { Clock } from '#shared/clock.ts'
import { canonicalJson } from '#shared/state-digest.ts'
import { Fault } from '#shared/fault.ts'
import { LOG_KEYS } from '#shared/log-keys.ts'
import type { Removal, Rollout } from '#shared/schemas/api.ts'
import type { FunctionSettings } from '#shared/schemas/command.ts'
import type { EventHub } from '../events/index.ts'
import { selectNodes, type Fleet } from '../fleet/index.ts'
import type { RolloutRow, Store, StoreTransaction } from '../store/index.ts'
import {
  applyInSql,
  assign,
  functionOf,
  mergeSettings,
  publicRollout,
  releaseOf,
} from './changes.ts'
import { observeRollout } from './facts.ts'
import { Latest } from './latest.ts'
import { Loop } from './loop.ts'
import { abortRollout, isOpen, PLAN_OPTIONS, planRollout, type Plan } from './plan.ts'

const DEADLINE_MS = 120_000
const OPEN_MAX = 1_000
const ENDED_KEPT = 2_000

export interface RolloutsOptions {
  readonly store: Store
  readonly fleet: Fleet
  readonly events: EventHub
  readonly clock: Clock
  readonly log: Logger
  readonly graceMs?: number
  readonly finalGraceMs?: number
}

export interface RolloutRequest {
  readonly fn: string
  /** Default: the newest. */
  readonly release?: string | undefined
  /** Default `*`. */
  readonly selector?: string | undefined
  /** What is not given is inherited from the function's last rollout, else the default. */
  readonly settings?: Partial<FunctionSettings> | undefined
  readonly deadlineMs?: number | undefined
}

/**
 * All rollouts. One loop owns every change to them; events only wake it. It starts where it was after a crash, since
 * everything it knows is in SQL or said again by nodes.
 */
export class Rollouts {
  readonly #options: RolloutsOptions
  readonly #loop: Loop
  readonly #unsubscribe: () => void
  /** False when there surely is no open rollout, so that heartbeats cost nothing. */
  #mayBeOpen = true

  constructor(options: RolloutsOptions) {
    this.#options = options
    this.#loop = new Loop({
      round: () => this.#round(),
      clock: options.clock,
      onError: (error) => options.log.error({ err: error }, 'rollouts not advanced'),
    })
    this.#unsubscribe = options.fleet.onChange(() => {
      if (this.#mayBeOpen) this.#loop.wake()
    })
    this.#loop.wake()
  }

  /**
   * Assigns the release to every selected node and follows it from there. An open rollout of the same function is aborted.
   *
   * @throws Fault `FUNCTION_UNKNOWN`, `RELEASE_UNKNOWN`, `NO_NODE_SELECTED`, `REQUEST_INVALID`, `CONFLICT`
   */
  async create(request: RolloutRequest): Promise<Rollout> {
    const { store, clock, log } = this.#options
    const id = randomUUID()
    const selectorText = request.selector ?? '*'
    return this.#loop.exclusive(async () => {
      const older = await this.#abortOpen([request.fn], `superseded by rollout ${id}`)
      const nowMs = clock.nowMs()
      const rollout = await store.transaction(async (tx) => {
        const fn = await functionOf(tx, request.fn)
        const release = await releaseOf(tx, request.fn, request.release)
        const settings = mergeSettings(fn, request.settings)
        const selected = selectNodes(await tx.nodes(), selectorText)
        const returned = await this.#save(tx, older)
        const row: RolloutRow = {
          id,
          function: request.fn,
          release: release.id,
          selector: selectorText,
          settings,
          state: 'rolling',
          createdAtMs: nowMs,
          deadlineAtMs: nowMs + (request.deadlineMs ?? DEADLINE_MS),
          nodes: await assign(tx, selected, { ...release, settings }, nowMs),
        }
        await tx.putFunction({ ...fn, settings })
        await tx.putRollout(row)
        await tx.pruneRollouts(ENDED_KEPT)
        return { row, returned }
      })
      this.#mayBeOpen = true
      this.#announce([...older.map(({ next }) => next), rollout.row])
      for (const node of rollout.returned) this.#options.fleet.touch(node)
      for (const { node } of rollout.row.nodes) this.#options.fleet.touch(node)
      log.info({ ...logKeys(rollout.row), nodes: rollout.row.nodes.length }, 'rollout started')
      return publicRollout(rollout.row)
    })
  }

  /** Ends an open rollout; one that has ended stays as it is. @throws Fault `ROLLOUT_UNKNOWN` */
  async abort(id: string): Promise<Rollout> {
    return this.#loop.exclusive(async () => {
      const row = await this.#get(id)
      if (!isOpen(row.state)) return publicRollout(row)
      const plan = await this.#abortPlan(row, 'aborted by request')
      await this.#commit([plan])
      return publicRollout(plan.next)
    })
  }

  /** @throws Fault `ROLLOUT_UNKNOWN` */
  async get(id: string): Promise<Rollout> {
    return publicRollout(await this.#get(id))
  }

  /** Newest first. */
  async list(fn?: string): Promise<Rollout[]> {
    const rows = await this.#options.store.rollouts(fn === undefined ? {} : { fn })
    return rows.map((row) => publicRollout(row))
  }

  /**
   * Snapshots: the state now, then one after each change (the newest, when several came at once), until it is no longer
   * rolling.
   *
   * @yields Snapshots.
   * @throws Fault `ROLLOUT_UNKNOWN`
   */
  async *watch(id: string, signal: AbortSignal): AsyncGenerator<Rollout> {
    const latest = new Latest<Rollout>()
    const unsubscribe = this.#options.events.subscribe((event) => {
      if (event.type === 'rollout' && event.rollout.id === id) latest.set(event.rollout)
    })
    try {
      let shown: Rollout | undefined = await this.get(id)
      while (shown !== undefined) {
        yield shown
        if (shown.state !== 'rolling') return
        shown = await latest.next(signal)
      }
    } finally {
      unsubscribe()
    }
  }

  /**
   * Removes functions everywhere: rollouts end, assignments and releases go, nodes are told.
   *
   * @param names - Absent: all of them
   * @throws Fault `FUNCTION_UNKNOWN` for a name that is not there
   */
  async removeFunctions(
    names: readonly string[] | undefined,
    waitMs: number,
    signal: AbortSignal,
  ): Promise<Removal> {
    const { store, fleet, events, log } = this.#options
    const { removed, nodes } = await this.#loop.exclusive(async () => {
      const doomed = names ?? (await store.functions()).map(({ name }) => name)
      for (const name of doomed) await functionOf(store, name)
      const ended = await this.#abortOpen(doomed, 'the function was deleted')
      const affected = await store.transaction(async (tx) => {
        const touched = new Set<string>()
        for (const name of doomed) {
          for (const { node } of await tx.assignments({ fn: name })) touched.add(node)
        }
        for (const { next } of ended) await tx.putRollout(next)
        for (const name of doomed) await tx.deleteFunction(name)
        return [...touched]
      })
      this.#announce(ended.map(({ next }) => next))
      return { removed: doomed, nodes: affected }
    })
    for (const name of removed) {
      log.info({ [LOG_KEYS.fn]: name }, 'function deleted')
      events.publish({ type: 'function', function: name, change: 'deleted' })
    }
    for (const node of nodes) fleet.touch(node)
    return { removed: [...removed], pending: await fleet.waitUntilKept(nodes, waitMs, signal) }
  }

  async close(): Promise<void> {
    this.#unsubscribe()
    await this.#loop.close()
  }

  /** @returns when to look again, whatever happens */
  async #round(): Promise<number | undefined> {
    const { store, fleet, clock } = this.#options
    const open = await store.rollouts({ open: true, limit: OPEN_MAX })
    this.#mayBeOpen = open.length > 0
    let wakeAtMs: number | undefined
    for (const rollout of open) {
      const facts = await observeRollout(store, fleet, rollout)
      const plan = planRollout(rollout, facts, clock.nowMs(), { ...PLAN_OPTIONS, ...this.#grace() })
      // Rows from SQL have their fields in another order.
      if (canonicalJson(plan.next) !== canonicalJson(rollout)) await this.#commit([plan])
      for (const effect of plan.effects) {
        if (effect.kind === 'send') fleet.dispatcher.poke(effect.node, { patient: true })
        if (effect.kind === 'wake') wakeAtMs = Math.min(wakeAtMs ?? effect.atMs, effect.atMs)
      }
      if (rollout.nodes.some(({ node }) => facts.get(node)?.presence === 'unknown')) {
        wakeAtMs = Math.min(wakeAtMs ?? Infinity, fleet.liveness.unsureUntilMs)
      }
    }
    return wakeAtMs
  }

  /** Writes what was planned, with the effects that are in SQL, and says so. */
  async #commit(plans: readonly Plan[]): Promise<void> {
    const changed = await this.#options.store.transaction((tx) => this.#save(tx, plans))
    this.#announce(plans.map(({ next }) => next))
    for (const node of changed) this.#options.fleet.touch(node)
    for (const { next } of plans) {
      if (isOpen(next.state)) continue
      this.#options.log.info(
        { ...logKeys(next), state: next.state, reason: next.reason },
        'rollout ended',
      )
    }
  }

  /** @returns nodes whose assignments have changed */
  async #save(tx: StoreTransaction, plans: readonly Plan[]): Promise<string[]> {
    const changed: string[] = []
    for (const { next, effects } of plans) {
      await tx.putRollout(next)
      for (const effect of effects) {
        const placed = await applyInSql(tx, next, effect)
        changed.push(...placed.changed)
        for (const { fn, node, fault } of placed.unplaced) {
          const keys = { [LOG_KEYS.fn]: fn, [LOG_KEYS.node]: node, err: fault }
          this.#options.log.warn(keys, 'function not placed')
        }
      }
    }
    return changed
  }

  async #abortOpen(fns: readonly string[], reason: string): Promise<Plan[]> {
    const open = await this.#options.store.rollouts({ open: true, limit: OPEN_MAX })
    const mine = open.filter(({ function: fn }) => fns.includes(fn))
    return Promise.all(mine.map((row) => this.#abortPlan(row, reason)))
  }

  async #abortPlan(row: RolloutRow, reason: string): Promise<Plan> {
    const { store, fleet, clock } = this.#options
    return abortRollout(row, await observeRollout(store, fleet, row), reason, clock.nowMs())
  }

  async #get(id: string): Promise<RolloutRow> {
    const row = await this.#options.store.rollout(id)
    if (row === undefined) throw new Fault('ROLLOUT_UNKNOWN', `there is no rollout ${id}`)
    return row
  }

  #announce(rows: readonly RolloutRow[]): void {
    for (const row of rows) {
      this.#options.events.publish({ type: 'rollout', rollout: publicRollout(row) })
    }
  }

  #grace(): { graceMs?: number; finalGraceMs?: number } {
    const { graceMs, finalGraceMs } = this.#options
    return {
      ...(graceMs === undefined ? {} : { graceMs }),
      ...(finalGraceMs === undefined ? {} : { finalGraceMs }),
    }
  }
}

function logKeys(row: RolloutRow): Record<string, string> {
  return {
    [LOG_KEYS.rollout]: row.id,
    [LOG_KEYS.fn]: row.function,
    [LOG_KEYS.release]: row.release,
  }
}
