import { randomUUID } from 'node:crypto'
import type { Clock } from '#shared/clock.ts'
import type { NodeCommand } from '#shared/schemas/command.ts'
import type { FunctionReport, Heartbeat } from '#shared/schemas/health.ts'
import { stateDigest } from '#shared/state-digest.ts'
import { cutText } from '#shared/text.ts'
import type { HostSample } from './host-sampler.ts'
import type { HealthLog } from './log.ts'

/** A state that changed is told at once, but not more often than this. */
const BEAT_GAP_MS = 100

/** Where the parts of a heartbeat come from. */
export interface HealthSources {
  readonly node: string
  readonly clock: Clock
  readonly command: () => NodeCommand | undefined
  readonly refusal: () => Heartbeat['refusal']
  readonly functions: () => readonly FunctionReport[]
  readonly host: () => Promise<HostSample>
  readonly probe: () => Heartbeat['probe']
  /** Between two heartbeats. */
  readonly everyMs: number
}

/** Builds heartbeats: one boot id for the life of this object, numbered from 1 without gaps. */
export class HeartbeatBuilder {
  readonly #sources: HealthSources
  readonly #boot = randomUUID()
  readonly #startedMs = performance.now()
  #seq = 0
  #digest: { readonly of: NodeCommand | undefined; readonly text: string }

  constructor(sources: HealthSources) {
    this.#sources = sources
    this.#digest = { of: undefined, text: stateDigest([]) }
  }

  async build(): Promise<Heartbeat> {
    const { node, clock, functions, host, everyMs } = this.#sources
    const sample = await host()
    const command = this.#sources.command()
    const probe = this.#sources.probe()
    const refusal = this.#sources.refusal()
    this.#seq += 1
    return {
      node,
      boot: this.#boot,
      seq: this.#seq,
      sentAtMs: clock.nowMs(),
      uptimeMs: Math.round(performance.now() - this.#startedMs),
      everyMs,
      generation: command?.generation ?? 0,
      stateDigest: this.#digestOf(command),
      functions: withinBytes(functions()),
      host: sample,
      ...(probe === undefined ? {} : { probe }),
      ...(refusal === undefined ? {} : { refusal }),
    }
  }

  #digestOf(command: NodeCommand | undefined): string {
    if (this.#digest.of !== command) {
      this.#digest = { of: command, text: stateDigest(command?.functions ?? []) }
    }
    return this.#digest.text
  }
}

/** The broker takes messages of 1 MiB; the rest is for everything else in a heartbeat. */
const FUNCTIONS_BYTES_MAX = 900 * 1024
/** Of a reason's text, in characters, when there is no room for all of it; the last is none. */
const REASON_CHARS = [200, 3]
/** A character in JSON, at most. */
const CHAR_BYTES_MAX = 6
const REPORT_CHARS = 1_024

/** A node whose functions all fail must not fall silent because they have so much to say: then their reasons are cut. */
function withinBytes(functions: readonly FunctionReport[]): FunctionReport[] {
  const chars = functions.reduce((sum, { reason }) => sum + (reason?.message.length ?? 0), 0)
  // Nearly always: without making the text of all twice.
  if (chars * CHAR_BYTES_MAX + functions.length * REPORT_CHARS <= FUNCTIONS_BYTES_MAX) {
    return [...functions]
  }
  let cut = [...functions]
  for (const charsMax of REASON_CHARS) {
    if (Buffer.byteLength(JSON.stringify(cut)) <= FUNCTIONS_BYTES_MAX) break
    cut = functions.map((report) => withReason(report, charsMax))
  }
  return cut
}

function withReason(report: FunctionReport, charsMax: number): FunctionReport {
  const { reason } = report
  if (reason === undefined) return report
  return { ...report, reason: { ...reason, message: cutText(reason.message, charsMax) } }
}

export interface HeartbeatLoopOptions {
  readonly intervalMs: number
  /** False while the broker is away: the beat is then skipped, and neither built nor queued. */
  readonly connected: () => boolean
  /** Called once per beat, never concurrently with itself. */
  readonly build: () => Promise<Heartbeat>
  /** @returns false when it could not be sent */
  readonly publish: (heartbeat: Heartbeat) => boolean
  readonly log: HealthLog
}

/**
 * Reports this node's health at a fixed pace, and at once after `wake()`. A beat that fails is logged and skipped: the next one
 * carries newer truth. `close()` sends a last one.
 */
export class HeartbeatLoop implements AsyncDisposable {
  readonly #options: HeartbeatLoopOptions
  readonly #running: Promise<void>
  #stopped = false
  #sent = 0
  #woken = Promise.withResolvers<void>()

  private constructor(options: HeartbeatLoopOptions) {
    this.#options = options
    this.#running = this.#run()
  }

  static start(options: HeartbeatLoopOptions): HeartbeatLoop {
    return new HeartbeatLoop(options)
  }

  /** Beats sent so far. */
  get sent(): number {
    return this.#sent
  }

  /** Something changed that the controller should not wait for. */
  wake(): void {
    this.#woken.resolve()
  }

  async close(): Promise<void> {
    if (this.#stopped) return this.#running
    this.#stopped = true
    this.wake()
    await this.#running
    await this.#beat()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      this.#woken = Promise.withResolvers()
      await this.#beat()
      if (this.#stopped) return
      await pause(BEAT_GAP_MS)
      await this.#pauseUntilWoken(this.#options.intervalMs - BEAT_GAP_MS)
    }
  }

  async #pauseUntilWoken(ms: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const over = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, ms)
    })
    await Promise.race([over, this.#woken.promise])
    clearTimeout(timer)
  }

  async #beat(): Promise<void> {
    const { connected, build, publish, log } = this.#options
    if (!connected()) return
    try {
      if (publish(await build())) this.#sent += 1
    } catch (error) {
      log.warn({ err: error }, 'heartbeat skipped')
    }
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms)
  })
}
