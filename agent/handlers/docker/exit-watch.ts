import { setTimeout as sleep } from 'node:timers/promises'
import type Docker from 'dockerode'
import type { HandlerExit } from '../engine.ts'
import { LABELS } from './container-options.ts'
import { limited } from './docker-errors.ts'

/** Of the newest; the news of an end is hardly ever later than that. */
const UNWANTED_MAX = 1_000
/** 128 + SIGKILL. */
const EXIT_KILLED = 137
const OOM_NEWS_MS = 250
const BACKOFF_FIRST_MS = 100
const BACKOFF_LAST_MS = 2_000
const CALL_MS = 15_000
/** A line of the event stream that is longer than this is no event of ours. */
const LINE_CHARS_MAX = 64 * 1024

export interface ExitWatchOptions {
  readonly docker: Docker
  readonly installation: string
  readonly onExit: (exit: HandlerExit) => void
  /** Once per loss, not per try. */
  readonly onLost: (error: Error) => void
  /** How long the daemon may take to answer. Default 15,000. */
  readonly callMs?: number
  /** How long the daemon may take to hear why a handler was killed. Default 250. */
  readonly oomNewsMs?: number | undefined
}

interface EngineEvent {
  readonly Action?: string
  readonly Actor?: { readonly ID?: string; readonly Attributes?: Readonly<Record<string, string>> }
}

interface Watched {
  readonly containerId: string
  /** False: it did not run when first listed, so only the stream can say that it ended since the watch began. */
  readonly ran: boolean
}

/**
 * Follows the engine's event stream and says which handlers of one installation ended.
 *
 * ```
 *   connect --> resync (list, compare with what ran) --> follow --+
 *      ^                                                          | stream ends, daemon gone
 *      +------------- wait 100 ms, doubling to 2 s  <-- onLost ---+
 * ```
 *
 * The stream is opened before the list is read, so that nothing falls between them. An end is news once, and only as long as
 * the container is the one that is known by its handler's id: not after `delete`, and not when another has that id by then.
 */
export class ExitWatch implements Disposable {
  readonly #options: ExitWatchOptions
  readonly #callMs: number
  readonly #stopped = new AbortController()
  /** By handler id. */
  readonly #watched = new Map<string, Watched>()
  /** Ids of containers whose end is wanted, or told already, and may still be news of the stream. */
  readonly #unwanted = new Set<string>()
  /** Container ids that the engine reported as out of memory and not yet as ended. */
  readonly #oom = new Set<string>()

  constructor(options: ExitWatchOptions) {
    this.#options = options
    this.#callMs = options.callMs ?? CALL_MS
    void this.#loop()
  }

  /** A handler that was started by this process: its end must be seen even if the daemon dies first. */
  add(handlerId: string, containerId: string): void {
    this.#watched.set(handlerId, { containerId, ran: true })
  }

  /** A handler whose end is wanted: not reported any more. */
  delete(handlerId: string): void {
    const watched = this.#watched.get(handlerId)
    this.#watched.delete(handlerId)
    if (watched !== undefined) this.#ignore(watched.containerId)
  }

  [Symbol.dispose](): void {
    this.#stopped.abort()
  }

  async #loop(): Promise<void> {
    const { signal } = this.#stopped
    let backoffMs = BACKOFF_FIRST_MS
    let lost = false
    while (!signal.aborted) {
      // Of this connection, also while it is not answered: each one left open would cost a descriptor here and in a daemon that hangs.
      const over = new AbortController()
      try {
        const stream = await this.#connect(AbortSignal.any([signal, over.signal]))
        await this.#resync(signal)
        lost = false
        backoffMs = BACKOFF_FIRST_MS
        await this.#follow(stream, signal)
        throw new Error('the event stream of the engine ended')
      } catch (error) {
        if (signal.aborted) return
        if (!lost) this.#options.onLost(error instanceof Error ? error : new Error(String(error)))
        lost = true
      } finally {
        over.abort()
      }
      await sleep(backoffMs, undefined, { signal }).catch(() => undefined)
      backoffMs = Math.min(backoffMs * 2, BACKOFF_LAST_MS)
    }
  }

  #connect(signal: AbortSignal): Promise<NodeJS.ReadableStream> {
    const filters = {
      type: ['container' as const],
      event: ['die', 'oom'],
      label: [`${LABELS.installation}=${this.#options.installation}`],
    }
    // The limit is for the answer's head only, so it must not be the signal that the stream keeps.
    return limited(
      () => this.#options.docker.getEvents({ filters, abortSignal: signal }),
      this.#callMs,
      signal,
    )
  }

  async #resync(signal: AbortSignal): Promise<void> {
    const { docker, installation } = this.#options
    const filters = { label: [`${LABELS.installation}=${installation}`] }
    // Taken first, because the list says nothing about what is started or stopped while it is on its way.
    const before = new Map(this.#watched)
    const found = await limited(
      (abortSignal) => docker.listContainers({ all: true, filters, abortSignal }),
      this.#callMs,
      signal,
    )
    const lasting = new Set<string>()
    for (const { Id: containerId, Labels: labels, State: state } of found) {
      const id = labels[LABELS.handler]
      if (id === undefined) continue
      const ran = state === 'running' || state === 'paused'
      if (ran || state === 'created') lasting.add(containerId)
      const known = this.#watched.get(id)
      const isNew = known === undefined && !before.has(id) && !this.#unwanted.has(containerId)
      // What was made when it was last listed may run by now.
      const begun = known?.containerId === containerId && ran && !known.ran
      if (isNew || begun) this.#watched.set(id, { containerId, ran })
    }
    const there = new Set(found.map(({ Id }) => Id))
    for (const containerId of this.#unwanted) {
      if (!there.has(containerId)) this.#unwanted.delete(containerId)
    }
    for (const [id, { containerId, ran }] of before) {
      if (ran && !lasting.has(containerId)) await this.#ended(id, containerId, undefined, signal)
    }
  }

  async #follow(stream: NodeJS.ReadableStream, signal: AbortSignal): Promise<void> {
    stream.setEncoding('utf8')
    let rest = ''
    for await (const chunk of stream) {
      const lines = (rest + String(chunk)).split('\n')
      rest = lines.pop() ?? ''
      if (rest.length > LINE_CHARS_MAX) rest = ''
      for (const line of lines) if (line.trim() !== '') await this.#event(line, signal)
    }
  }

  async #event(line: string, signal: AbortSignal): Promise<void> {
    const event: EngineEvent = JSON.parse(line)
    const containerId = event.Actor?.ID ?? ''
    const attributes = event.Actor?.Attributes ?? {}
    const id = attributes[LABELS.handler]
    if (id === undefined) return
    if (event.Action === 'oom') {
      this.#oom.add(containerId)
      return
    }
    const oom = this.#oom.delete(containerId)
    const known = { exitCode: Number(attributes['exitCode'] ?? -1), oom }
    // Not waited for: one handler's end must not hold up the news of another's.
    void this.#ended(id, containerId, known, signal)
  }

  /** Reports one end; asks the engine for what the event did not say. */
  async #ended(
    id: string,
    containerId: string,
    known: { readonly exitCode: number; readonly oom: boolean } | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    if (!this.#isNews(id, containerId)) return
    // The engine may tell of the kill before it has heard why: "oom" comes on another path of the kernel's.
    if (known?.exitCode === EXIT_KILLED && !known.oom) {
      const { oomNewsMs = OOM_NEWS_MS } = this.#options
      await sleep(oomNewsMs, undefined, { signal }).catch(() => undefined)
    }
    const state = await this.#state(containerId, signal)
    // Told already, or stopped in the meantime.
    if (!this.#isNews(id, containerId)) return
    this.#watched.delete(id)
    this.#ignore(containerId)
    this.#options.onExit({
      id,
      exitCode: known?.exitCode ?? state?.ExitCode ?? -1,
      oomKilled: known?.oom === true || state?.OOMKilled === true,
    })
  }

  /** An id that is not known yet is that of a handler whose agent was killed while the engine made it. */
  #isNews(id: string, containerId: string): boolean {
    const watched = this.#watched.get(id)
    if (this.#unwanted.has(containerId)) return false
    return watched === undefined || watched.containerId === containerId
  }

  #ignore(containerId: string): void {
    this.#unwanted.add(containerId)
    const [oldest] = this.#unwanted
    if (this.#unwanted.size > UNWANTED_MAX && oldest !== undefined) this.#unwanted.delete(oldest)
  }

  async #state(containerId: string, signal: AbortSignal) {
    try {
      const { State } = await limited(
        (abortSignal) => this.#options.docker.getContainer(containerId).inspect({ abortSignal }),
        this.#callMs,
        signal,
      )
      return State
    } catch {
      // Removed in the meantime, or the daemon is gone again: the event alone has to do.
      return undefined
    }
  }
}
