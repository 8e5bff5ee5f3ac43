import { setTimeout as sleep } from 'node:timers/promises'
import {
  newRecord,
  type BundleStore,
  type Engine,
  type Handler,
  type HandlerFolders,
  type HandlerRecord,
  type HandlerTimings,
  type Spare,
  type SparePool,
} from '#agent/handlers/index.ts'
import type { InvokeRouter, RunnerLink } from '#agent/invoke/index.ts'
import { Fault } from '#shared/fault.ts'
import { LOG_KEYS } from '#shared/log-keys.ts'
import { timeLimit } from '#shared/time-limit.ts'
import { laneSettingsOf, type FunctionState } from './function-state.ts'
import { newHeld, type Held } from './held.ts'
import type { Step } from './model.ts'
import type { Slots } from './slots.ts'

/** Just what is used of a logger; pino's fits. */
export interface ReconcileLog {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

/** How long a start may hold its slot beyond the engine's part: a function that loads slowly must not hold up the others. */
const SLOT_MS = 5_000
/** A removal is not given up when the reconciler closes: half of one is the worst of all. */
const STOP_MS = 60_000
/** For the engine to pause or unpause a handler. */
const PAUSE_MS = 15_000
/** For a PONG: a little more than it takes for the link to be called blocked. */
const PONG_MS = 1_100

/** What the executors work on; owned by the one loop that calls them. */
export interface Workshop {
  readonly engine: Engine
  readonly router: InvokeRouter
  readonly bundles: BundleStore
  readonly folders: HandlerFolders
  readonly log: ReconcileLog
  readonly functions: Map<string, FunctionState>
  readonly orphans: Set<string>
  readonly bodyBytesMax: number
  /** For calls in flight when the agent stops, or on a handler that answers nobody. */
  readonly drainMs: number
  readonly slots: {
    readonly start: Slots
    readonly adopt: Slots
    readonly stop: Slots
    readonly fetch: Slots
  }
  /** Aborts when the reconciler closes. */
  readonly signal: AbortSignal
  /** Has the loop look again. */
  wake(): void
  nowMs(): number
  readonly spares: SparePool
  newHandler(record: HandlerRecord, origin: 'created' | 'found', spare?: Spare): Handler
  /** Lets work go on in the background; its end wakes the loop. `work` handles its own errors. */
  track(work: Promise<void>): void
  /** As `track`, for what may take as long as a call: nothing has to wait for its end. */
  linger(work: Promise<void>): void
  /** @param sinceMs - see `FunctionState.fail` */
  failed(state: FunctionState, error: unknown, sinceMs?: number): void
  /** The engine has turned out not to answer. */
  engineLost(fault: Fault): void
  started(state: FunctionState, timings: HandlerTimings): void
}

type Executor<K extends Step['kind']> = (
  shop: Workshop,
  step: Extract<Step, { readonly kind: K }>,
) => void

// One entry for each kind of step: a new kind does not compile until it can be executed. What is decided is done before an
// executor returns; what takes time goes on in the background.
const EXECUTORS: { readonly [K in Step['kind']]: Executor<K> } = {
  route(shop, { fn }) {
    const state = stateOf(shop, fn)
    const { assignment, routingWanted } = state
    if (assignment === undefined) return
    const settings = laneSettingsOf(assignment, shop.bodyBytesMax)
    state.lane = shop.router.ensure(fn, settings, {
      onOverrun: (link) => overran(shop, state, link),
      onDemand: () => shop.wake(),
      onSpent: (link) => spent(shop, state, link),
    })
    state.routing = routingWanted
  },

  unroute(shop, { fn }) {
    shop.router.remove(fn)
    const state = stateOf(shop, fn)
    state.lane = undefined
    state.routing = undefined
  },

  fetch(shop, { fn }) {
    const state = stateOf(shop, fn)
    const { artifact } = state.assignment ?? {}
    if (artifact === undefined || state.fetching !== undefined) return
    const giveUp = new AbortController()
    const signal = AbortSignal.any([giveUp.signal, shop.signal])
    state.fetching = giveUp
    const fetch = async (): Promise<void> => {
      try {
        await shop.slots.fetch.run(() => shop.bundles.ensure(artifact, signal))
      } catch (error) {
        if (!signal.aborted) shop.failed(state, error)
      } finally {
        if (state.fetching === giveUp) state.fetching = undefined
      }
    }
    shop.track(fetch())
  },

  start(shop, { fn, reason }) {
    const state = stateOf(shop, fn)
    const isFallback = reason === 'fallback'
    const { assignment, identity } = isFallback ? (state.fallback ?? NOTHING) : state
    const bundle = assignment && shop.bundles.get(assignment.artifact.digest)
    if (assignment === undefined || identity === undefined || bundle === undefined) return
    const { runtime, settings } = assignment
    const { memoryMiB, cpus, pids, network } = settings
    const limits = { memoryMiB, cpus, pids }
    const spare = network === 'none' ? shop.spares.take({ runtime, identity, limits }) : undefined
    const record = newRecord(assignment, identity, bundle, spare?.id)
    const handler = shop.newHandler(record, 'created', spare)
    state.held.set(handler.id, newHeld(handler, shop.nowMs(), isFallback))
    shop.log.debug({ ...keys(handler), reason }, 'handler start')
    const start = shop.slots.start.run(async () => {
      if (handler.state.kind !== 'created') return
      const opening = handler.start()
      shop.track(opening)
      await Promise.race([opening, sleep(SLOT_MS, undefined, { ref: false })])
    })
    shop.track(start)
  },

  adopt(shop, { fn, id }) {
    const held = heldOf(shop, fn, id)
    held.adopting = true
    const adopt = async (): Promise<void> => {
      if (held.handler.state.kind === 'found') await held.handler.adopt(held.foundPaused)
    }
    shop.track(shop.slots.adopt.run(adopt))
  },

  attach(shop, { fn, id }) {
    const state = stateOf(shop, fn)
    const held = heldOf(shop, fn, id)
    const { handler } = held
    if (state.lane === undefined) return
    // Before calls that wait for it are sent: for some it is spent with the first of them.
    held.servingSinceMs = shop.nowMs()
    handler.attach(state.lane)
    const isNew = !held.proven && !held.adopting
    held.lane = state.lane
    held.proven = true
    state.served(handler.record.specDigest, shop.nowMs())
    shop.log.info({ ...keys(handler), timings: handler.timings }, 'handler serves')
    if (isNew) shop.started(state, handler.timings)
  },

  drain(shop, { fn, id, reason }) {
    const held = heldOf(shop, fn, id)
    const { handler, lane } = held
    held.servingSinceMs = undefined
    if (lane === undefined) return
    shop.log.info({ ...keys(handler), reason }, 'handler drains')
    // Calls have until their own deadlines, which may be an hour away. A handler that answers nobody is not worth that; and to
    // remove the function is how an operator ends one that hangs.
    const hangs = reason === 'blocked' || (reason === 'unwanted' && isBlocked(handler))
    shop.linger(handler.drain(lane, hangs ? shop.drainMs : undefined))
  },

  pause(shop, { fn, id, reason }) {
    const held = heldOf(shop, fn, id)
    shop.log.debug({ ...keys(held.handler), reason }, 'handler pause')
    shop.track(pause(shop, held))
  },

  resume(shop, { fn, id, reason }) {
    const held = heldOf(shop, fn, id)
    shop.log.debug({ ...keys(held.handler), reason }, 'handler resume')
    shop.track(resume(shop, stateOf(shop, fn), held))
  },

  stop(shop, { fn, id, reason }) {
    const state = stateOf(shop, fn)
    const held = heldOf(shop, fn, id)
    shop.log.debug({ ...keys(held.handler), reason }, 'handler stop')
    shop.track(shop.slots.stop.run(() => stop(shop, state, held)))
    // Not before its turn, but nobody else may do anything with it any more.
    held.leaving = true
  },

  forget(shop, { fn }) {
    shop.functions.delete(fn)
  },

  'remove-orphan'(shop, { id }) {
    // When it cannot be removed, the next survey finds it again.
    shop.orphans.delete(id)
    const remove = async (): Promise<void> => {
      try {
        await shop.engine.stop(id, 0, timeLimit(STOP_MS))
        await shop.folders.remove(id)
        shop.log.info({ [LOG_KEYS.handler]: id }, 'orphan removed')
      } catch (error) {
        shop.log.warn({ [LOG_KEYS.handler]: id, [LOG_KEYS.err]: error }, 'orphan stays for now')
      }
    }
    shop.track(shop.slots.stop.run(remove))
  },
}

/** Does one step; one that goes wrong counts against its function and hides none of the others. */
export function apply(shop: Workshop, step: Step): void {
  try {
    execute(shop, step)
  } catch (error) {
    shop.log.error({ step, [LOG_KEYS.err]: error }, 'step failed')
    const state = 'fn' in step ? shop.functions.get(step.fn) : undefined
    if (state === undefined) return
    shop.failed(state, error)
    const held = 'id' in step ? state.held.get(step.id) : undefined
    if (held !== undefined) held.broken = true
  }
}

function execute<K extends Step['kind']>(
  shop: Workshop,
  step: Extract<Step, { readonly kind: K }>,
): void {
  const run = EXECUTORS[step.kind]
  run(shop, step)
}

async function stop(shop: Workshop, state: FunctionState, held: Held): Promise<void> {
  const { handler } = held
  try {
    await handler.stop(timeLimit(STOP_MS))
    state.held.delete(handler.id)
  } catch (error) {
    held.stopFailures++
    held.leaving = false
    held.stopRetryAtMs = shop.nowMs() + Math.min(60_000, 500 * 2 ** Math.min(held.stopFailures, 8))
    shop.log.warn({ ...keys(handler), [LOG_KEYS.err]: error }, 'handler not removed yet')
  }
}

/** One that cannot be paused is removed: it serves nobody. With an engine that is away it stays as it is until that is back. */
async function pause(shop: Workshop, held: Held): Promise<void> {
  held.resting = true
  try {
    await held.handler.pause(timeLimit(PAUSE_MS))
  } catch (error) {
    if (Fault.is(error, 'ENGINE_UNAVAILABLE')) return shop.engineLost(error)
    held.broken = true
    shop.log.warn({ ...keys(held.handler), [LOG_KEYS.err]: error }, 'handler not paused')
  }
}

async function resume(shop: Workshop, state: FunctionState, held: Held): Promise<void> {
  const { pausedAtMs } = held
  held.pausedAtMs = undefined
  held.resting = false
  try {
    await held.handler.resume(timeLimit(PAUSE_MS))
  } catch (error) {
    // It is paused still: the engine has to come back first.
    held.pausedAtMs = pausedAtMs
    held.resting = pausedAtMs !== undefined
    shop.failed(state, error)
  }
}

const NOTHING = { assignment: undefined, identity: undefined }

/** It has its one call: another one is made ready in its place. */
function spent(shop: Workshop, state: FunctionState, link: RunnerLink): void {
  const held = state.held.get(link.handlerId)
  if (held === undefined) return
  held.spent = true
  state.spent(held)
  shop.wake()
}

/** A handler did not end a call that was cancelled: it gets replaced, at once when it answers nobody at all. */
function overran(shop: Workshop, state: FunctionState, link: RunnerLink): void {
  const held = state.held.get(link.handlerId)
  if (held === undefined || held.suspect !== undefined) return
  held.suspect = link.blocked ? 'blocked' : 'overrun'
  // It is on its way out, and only its own call was held up.
  if (held.spent) return
  state.restarts++
  const message = `a call was not ended within the function's timeout; the handler is ${link.blocked ? 'blocked' : 'being replaced'}`
  shop.log.warn({ ...keys(held.handler), reason: held.suspect }, 'handler overran')
  shop.failed(state, new Fault('FUNCTION_EXITED', message), held.sinceMs)
  // With a short timeout it is too early to tell: the next look does, at once when there is no PONG.
  if (!link.blocked) link.ping(PONG_MS).catch(() => shop.wake())
}

function isBlocked({ state }: Handler): boolean {
  return state.kind === 'serving' && state.link.blocked
}

function keys({ record }: Handler): Record<string, string> {
  return {
    [LOG_KEYS.fn]: record.fn,
    [LOG_KEYS.release]: record.release,
    [LOG_KEYS.handler]: record.id,
  }
}

function stateOf(shop: Workshop, fn: string): FunctionState {
  const state = shop.functions.get(fn)
  if (state === undefined) throw new TypeError(`plan names ${fn}, which is not known`)
  return state
}

function heldOf(shop: Workshop, fn: string, id: string): Held {
  const held = stateOf(shop, fn).held.get(id)
  if (held === undefined) throw new TypeError(`plan names handler ${id}, which is not known`)
  return held
}
