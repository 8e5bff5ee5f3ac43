import type { Heartbeat, Refusal } from '#shared/schemas/health.ts'

/** How many beats may be missing before a node counts as offline, and a little for the way. */
const BEATS_MISSED_MAX = 3
const SLACK_BEATS = 0.5
const BEATS = BEATS_MISSED_MAX + SLACK_BEATS
/** How often `tick` is called. */
export const TICK_MS = 250
const LATE_MS = 1_000

/** What a node last said of the command it keeps. */
export interface Kept {
  readonly generation: number
  /** Absent: it has named the generation only. */
  readonly stateDigest?: string
}

export interface NodeLife {
  readonly online: boolean
  readonly lastSeenMs: number
  readonly heartbeat?: Heartbeat
  readonly kept?: Kept
  readonly refusal?: Refusal
  readonly missedBeats: number
  readonly boots: number
}

interface Life {
  online: boolean
  lastSeenMs: number
  heartbeat: Heartbeat | undefined
  kept: Kept | undefined
  refusal: Refusal | undefined
  missedBeats: number
  boots: number
  boot: string | undefined
  seq: number
  /** Time since `lastSeenMs` in which nobody could be heard. */
  excusedMs: number
  /** Without a word for so long, it is offline. */
  offlineAfterMs: number
}

export type BeatOutcome =
  | { readonly kind: 'taken'; readonly missed: number; readonly newBoot: boolean }
  /** Older than one that has been seen: of no use. */
  | { readonly kind: 'stale' }

/**
 * Who is there, from what nodes say; in memory only, since a controller that starts hears from everybody within a beat.
 *
 * ```
 * (unknown) --hello, beat--> online --3 beats missed--> offline --hello, beat--> online
 * ```
 */
export class Liveness {
  readonly #offlineAfterMs: number
  readonly #nodes = new Map<string, Life>()
  /** Until then a silent node may only not have had its turn yet. */
  #unsureUntilMs: number
  #tickedAtMs: number

  constructor(options: { readonly heartbeatMs: number; readonly nowMs: number }) {
    this.#offlineAfterMs = options.heartbeatMs * BEATS
    this.#unsureUntilMs = options.nowMs + this.#offlineAfterMs
    this.#tickedAtMs = options.nowMs
  }

  /** The connection is back: nodes get the time of some beats to be heard again. */
  reconnected(nowMs: number): void {
    this.#unsureUntilMs = nowMs + this.#offlineAfterMs
  }

  /** `unknown` while this controller has not listened long enough to call the node offline. */
  presence(node: string, nowMs: number): 'online' | 'offline' | 'unknown' {
    if (this.#nodes.get(node)?.online === true) return 'online'
    return nowMs < this.#unsureUntilMs ? 'unknown' : 'offline'
  }

  /** When silent nodes will be known to be offline. */
  get unsureUntilMs(): number {
    return this.#unsureUntilMs
  }

  get(node: string): NodeLife | undefined {
    const life = this.#nodes.get(node)
    if (life === undefined) return undefined
    return {
      online: life.online,
      lastSeenMs: life.lastSeenMs,
      missedBeats: life.missedBeats,
      boots: life.boots,
      ...(life.heartbeat === undefined ? {} : { heartbeat: life.heartbeat }),
      ...(life.kept === undefined ? {} : { kept: life.kept }),
      ...(life.refusal === undefined ? {} : { refusal: life.refusal }),
    }
  }

  /** @returns true when the node was not online before */
  hello(node: string, generation: number, nowMs: number): boolean {
    const life = this.#touch(node, nowMs)
    life.kept = { generation }
    const back = !life.online
    life.online = true
    return back
  }

  beat(beat: Heartbeat, nowMs: number): BeatOutcome & { readonly back: boolean } {
    const life = this.#touch(beat.node, nowMs)
    const back = !life.online
    life.online = true
    if (life.boot === beat.boot && beat.seq <= life.seq) return { kind: 'stale', back }
    const newBoot = life.boot !== undefined && life.boot !== beat.boot
    const missed = life.boot === beat.boot ? beat.seq - life.seq - 1 : 0
    if (life.boot !== beat.boot) life.boots += 1
    life.missedBeats += missed
    life.boot = beat.boot
    life.seq = beat.seq
    life.heartbeat = beat
    life.kept = { generation: beat.generation, stateDigest: beat.stateDigest }
    life.refusal = beat.refusal
    if (beat.everyMs !== undefined) {
      life.offlineAfterMs = Math.max(this.#offlineAfterMs, beat.everyMs * BEATS)
    }
    return { kind: 'taken', missed, newBoot, back }
  }

  /** The node has answered a command. */
  answered(node: string, generation: number, refusal: Refusal | undefined, nowMs: number): void {
    const life = this.#touch(node, nowMs)
    life.online = true
    life.refusal = refusal
    if (life.kept?.generation !== generation) life.kept = { generation }
  }

  /** Something about this node's command went wrong on our side. */
  refused(node: string, refusal: Refusal): void {
    const life = this.#nodes.get(node)
    if (life !== undefined) life.refusal = refusal
  }

  forget(node: string): void {
    this.#nodes.delete(node)
  }

  /**
   * To be called every `TICK_MS`. When it comes much later, this process stood still (a suspended host, a starved one, a clock that
   * was set) and cannot say who was silent: that time counts for nobody.
   *
   * @returns nodes that have just become offline
   */
  tick(nowMs: number): string[] {
    const lateMs = nowMs - this.#tickedAtMs - TICK_MS
    this.#tickedAtMs = nowMs
    const gone: string[] = []
    for (const [node, life] of this.#nodes) {
      if (lateMs > LATE_MS) life.excusedMs += lateMs
      if (!life.online || nowMs - life.lastSeenMs - life.excusedMs <= life.offlineAfterMs) continue
      life.online = false
      gone.push(node)
    }
    return gone
  }

  onlineCount(): number {
    let count = 0
    for (const life of this.#nodes.values()) if (life.online) count += 1
    return count
  }

  #touch(node: string, nowMs: number): Life {
    const known = this.#nodes.get(node)
    if (known !== undefined) {
      known.lastSeenMs = Math.max(known.lastSeenMs, nowMs)
      known.excusedMs = 0
      return known
    }
    const life: Life = {
      online: false,
      lastSeenMs: nowMs,
      heartbeat: undefined,
      kept: undefined,
      refusal: undefined,
      missedBeats: 0,
      boots: 0,
      boot: undefined,
      seq: 0,
      excusedMs: 0,
      offlineAfterMs: this.#offlineAfterMs,
    }
    this.#nodes.set(node, life)
    return life
  }
}
