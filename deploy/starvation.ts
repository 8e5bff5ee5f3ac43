import { readFileSync } from 'node:fs'

const LOOK_MS = 250
const WINDOW_MS = 10_000
/** Of the processor time, in a window: with less than this taken, tests' time limits hold. */
const STOLEN_SHARE_MAX = 0.25
/** Of a window that a process with nothing to do waited for its turns. */
const LATE_SHARE_MAX = 0.05
/** Of the windows: one bad moment excuses no failure elsewhere. */
const STARVED_SHARE_MIN = 0.05

interface MachineTicks {
  readonly all: number
  readonly idle: number
  /** What the machine's host gave to other guests while this one had work. */
  readonly stolen: number
}

/** Processor time of the machine since it booted, in ticks. */
export function machineTicks(): MachineTicks {
  // proc(5), /proc/stat: user nice system idle iowait irq softirq steal; guest time is in user already.
  const line = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0] ?? ''
  const ticks = line.split(/ +/).slice(1, 9).map(Number)
  return {
    all: ticks.reduce((sum, value) => sum + value, 0),
    idle: (ticks[3] ?? 0) + (ticks[4] ?? 0),
    stolen: ticks[7] ?? 0,
  }
}

/** Whether the machine had the time that time limits count on, in windows of ten seconds from when it is made. */
export class StarvationWatch implements Disposable {
  readonly #timer: NodeJS.Timeout
  #windows = 0
  #starved = 0
  #worstStolen = 0
  #worstLate = 0
  #window = { beganAtMs: performance.now(), ticks: machineTicks(), lateMs: 0 }
  #lookedAtMs = performance.now()

  constructor() {
    this.#timer = setInterval(() => this.#look(), LOOK_MS).unref()
  }

  get starved(): boolean {
    return this.#starved > this.#windows * STARVED_SHARE_MIN
  }

  /** For whoever reads why tests failed. */
  text(): string {
    const windows = `${this.#starved} of ${this.#windows} windows of ten seconds`
    const stolen = `its host took ${percent(this.#worstStolen)} of the processor time`
    const late = `an idle process waited for its turn for ${percent(this.#worstLate)} of the time`
    return `this machine was short of time in ${windows}: at worst ${stolen}, and ${late}`
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }

  #look(): void {
    const nowMs = performance.now()
    this.#window.lateMs += Math.max(0, nowMs - this.#lookedAtMs - LOOK_MS)
    this.#lookedAtMs = nowMs
    const tookMs = nowMs - this.#window.beganAtMs
    if (tookMs < WINDOW_MS) return
    const { ticks: before, lateMs } = this.#window
    const ticks = machineTicks()
    const stolen = (ticks.stolen - before.stolen) / Math.max(1, ticks.all - before.all)
    const late = lateMs / tookMs
    this.#windows += 1
    if (stolen > STOLEN_SHARE_MAX || late > LATE_SHARE_MAX) this.#starved += 1
    this.#worstStolen = Math.max(this.#worstStolen, stolen)
    this.#worstLate = Math.max(this.#worstLate, late)
    this.#window = { beganAtMs: nowMs, ticks, lateMs: 0 }
  }
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`
}
