import { performance } from 'node:perf_hooks'

/** Something that is due once; part of the entry itself, so that arming a timer allocates nothing. */
export abstract class WheelEntry {
  dueAtMs = 0
  next: WheelEntry | undefined
  previous: WheelEntry | undefined
  /** Index of its bucket, -1 while it is not armed. */
  bucket = -1

  /** Its time has come; it is not armed any more. */
  abstract expire(nowMs: number): void
}

export interface WheelOptions {
  /** Monotonic, default `performance.now`. */
  readonly nowMs?: () => number
  /** False for tests that call `advance` themselves. */
  readonly ticking?: boolean
}

const TICK_MS = 10
const BUCKETS = 512

/**
 * One coarse timer for everything that has a deadline: arming and disarming are a few pointer writes, whatever the
 * number of entries, and nothing runs while none is armed.
 *
 * Entries expire at their time or up to two ticks later, never earlier. One further away than a turn of the wheel (5 s)
 * is looked at once per turn.
 */
export class TimerWheel {
  readonly nowMs: () => number
  readonly #ticking: boolean
  readonly #buckets: (WheelEntry | undefined)[] = Array.from({ length: BUCKETS })
  #armed = 0
  /** The tick up to which buckets have been looked at. */
  #tick = 0
  #timer: NodeJS.Timeout | undefined

  constructor(options: WheelOptions = {}) {
    this.nowMs = options.nowMs ?? (() => performance.now())
    this.#ticking = options.ticking ?? true
  }

  get armed(): number {
    return this.#armed
  }

  /** The entry must not be armed. */
  arm(entry: WheelEntry, dueAtMs: number): void {
    if (this.#armed === 0) this.#start()
    const tick = Math.max(Math.ceil(dueAtMs / TICK_MS), this.#tick + 1)
    const bucket = tick % BUCKETS
    const first = this.#buckets[bucket]
    entry.dueAtMs = dueAtMs
    entry.bucket = bucket
    entry.previous = undefined
    entry.next = first
    if (first !== undefined) first.previous = entry
    this.#buckets[bucket] = entry
    this.#armed += 1
  }

  /** No effect on an entry that is not armed. */
  disarm(entry: WheelEntry): void {
    if (entry.bucket === -1) return
    const { next, previous } = entry
    if (previous === undefined) this.#buckets[entry.bucket] = next
    else previous.next = next
    if (next !== undefined) next.previous = previous
    entry.next = undefined
    entry.previous = undefined
    entry.bucket = -1
    this.#armed -= 1
  }

  /** Expires what is due. Called by the wheel's own timer; by a test instead, with `ticking: false`. */
  advance(): void {
    const nowMs = this.nowMs()
    const last = Math.floor(nowMs / TICK_MS)
    // After a pause longer than a turn every bucket is looked at once.
    let tick = Math.max(this.#tick + 1, last - BUCKETS + 1)
    for (; tick <= last; tick += 1) this.#expireBucket(tick % BUCKETS, nowMs)
    this.#tick = Math.max(this.#tick, last)
    if (this.#armed === 0) this.stop()
  }

  /** Ends the timer; arming starts it again. */
  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #start(): void {
    this.#tick = Math.max(this.#tick, Math.floor(this.nowMs() / TICK_MS))
    if (this.#ticking) this.#timer ??= setInterval(() => this.advance(), TICK_MS)
  }

  /** An entry may arm or disarm others, its neighbours too, when it expires: so the due ones are taken out first. */
  #expireBucket(bucket: number, nowMs: number): void {
    let due: WheelEntry[] | undefined
    for (let entry = this.#buckets[bucket]; entry !== undefined; entry = entry.next) {
      if (entry.dueAtMs <= nowMs) (due ??= []).push(entry)
    }
    if (due === undefined) return
    for (const entry of due) {
      // Disarmed, or armed anew for later, by one before it.
      if (entry.bucket !== bucket || entry.dueAtMs > nowMs) continue
      this.disarm(entry)
      entry.expire(nowMs)
    }
  }
}
