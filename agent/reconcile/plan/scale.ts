import type { FunctionSettings } from '#shared/schemas/command.ts'

/** What of a function's settings decides how many handlers it has. */
export interface Scale {
  /** Handlers that are always there; 0: none while it sleeps. */
  readonly min: number
  readonly max: number
  /** Calls at once in one handler. */
  readonly perHandler: number
  /** Time without a call until it sleeps; 0: never. */
  readonly idleMs: number
  /** Time asleep until its paused handler is removed. */
  readonly removeMs: number
  /** Each handler takes one call in its life; `min` are kept ready for the next ones. */
  readonly fresh: boolean
}

/** How many calls there are, as far as scaling needs to know. */
export interface Demand {
  /** Calls that need a handler now; with `fresh` only those that wait. */
  readonly calls: number
  /** The most there were since the last look. */
  readonly peak: number
  /** Handlers that take no more calls and still have one: they count against `max`. */
  readonly used: number
  /** When a call ended last; 0: never. */
  readonly lastCallAtMs: number
  /** Its release has shown that it runs, and nothing is wrong with it. */
  readonly maySleep: boolean
}

/** How many handlers are wanted, and what is needed to decide on the next change. */
export interface Level {
  /** 0: asleep (or, with `fresh`, all are in use). */
  readonly count: number
  /** When it rose above 0. */
  readonly awakeSinceMs: number
  /** Since when fewer would have done, and the most that were needed since. */
  readonly low?: { readonly sinceMs: number; readonly most: number }
}

export const ASLEEP: Level = { count: 0, awakeSinceMs: 0 }

/** Fewer handlers must have done for so long before one is taken away. */
export const QUIET_MS = 30_000
/** While there are more than the minimum, demand is looked at so often: calls that end wake nobody. */
const LOOK_MS = 10_000
const REMOVE_MS = 3_600_000
/** Handlers beyond `replicas` with isolation `fresh`, when `replicasMax` is not set: those in use count too. */
const FRESH_EXTRA = 8

/** The settings with what holds when one is absent. */
export function scaleOf(settings: FunctionSettings): Scale {
  const { replicas, replicasMax, idleMs = 0, removeMs = REMOVE_MS, isolation } = settings
  const fresh = isolation === 'fresh'
  const max = replicasMax ?? replicas + (fresh ? FRESH_EXTRA : 0)
  return {
    min: replicas,
    max: Math.max(1, replicas, max),
    perHandler: isolation === 'single' || fresh ? 1 : settings.concurrency,
    idleMs,
    removeMs,
    fresh,
  }
}

/**
 * The next level: up at once, down when fewer have done for `QUIET_MS`, asleep after `idleMs`. Pure.
 */
export function rescale(before: Level, scale: Scale, demand: Demand, nowMs: number): Level {
  if (isIdle(before, scale, demand, nowMs)) return { ...ASLEEP, awakeSinceMs: before.awakeSinceMs }
  const room = Math.max(0, scale.max - demand.used)
  const floor = Math.min(Math.max(1, scale.min), room)
  const needed = (calls: number): number =>
    Math.min(room, Math.max(floor, Math.ceil(calls / scale.perHandler)))
  const awakeSinceMs = before.count === 0 ? nowMs : before.awakeSinceMs
  const now = needed(demand.calls)
  const count = Math.min(room, Math.max(floor, before.count))
  if (now >= count) return { count: now, awakeSinceMs }
  const recent = needed(Math.max(demand.calls, demand.peak))
  if (recent >= count) return { count, awakeSinceMs }
  const { low } = before
  if (low === undefined) return { count, awakeSinceMs, low: { sinceMs: nowMs, most: recent } }
  const most = Math.max(low.most, recent)
  if (nowMs - low.sinceMs >= QUIET_MS) return { count: Math.min(count, most), awakeSinceMs }
  return { count, awakeSinceMs, low: { sinceMs: low.sinceMs, most } }
}

/** When the level may change though nothing happens; undefined: never. */
export function rescaleDueAtMs(
  level: Level,
  scale: Scale,
  demand: Demand,
  nowMs: number,
): number | undefined {
  const times: number[] = []
  if (level.low !== undefined) times.push(level.low.sinceMs + QUIET_MS)
  else if (level.count > Math.max(1, scale.min)) times.push(nowMs + LOOK_MS)
  if (level.count > 0 && canSleep(scale, demand)) {
    // The end of a call wakes nobody: while there are any, it is looked at again and again.
    const busy = demand.calls > 0 || demand.used > 0
    times.push(busy ? nowMs + scale.idleMs : idleAtMs(level, scale, demand))
  }
  const coming = times.filter((time) => time > nowMs)
  return coming.length === 0 ? undefined : Math.min(...coming)
}

function isIdle(level: Level, scale: Scale, demand: Demand, nowMs: number): boolean {
  if (!canSleep(scale, demand) || demand.calls > 0 || demand.used > 0) return false
  return level.count === 0 || nowMs >= idleAtMs(level, scale, demand)
}

function canSleep({ min, idleMs }: Scale, { maySleep }: Demand): boolean {
  return min === 0 && idleMs > 0 && maySleep
}

function idleAtMs({ awakeSinceMs }: Level, { idleMs }: Scale, { lastCallAtMs }: Demand): number {
  return Math.max(awakeSinceMs, lastCallAtMs) + idleMs
}
