import { createHash, type Hash } from 'node:crypto'
import * as fs from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { storageFault, syncFolder } from '#shared/durable-file.ts'
import { Fault, isFaultCode } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import { ARTIFACT_HEADERS, type ArtifactRange } from '#shared/schemas/wire.ts'
import { subjects } from '#shared/subjects.ts'
import { timeLimit } from '#shared/time-limit.ts'
import { backoffMs } from './backoff.ts'
import type { CommandLog } from './log.ts'
import type { NatsLink } from './nats-link.ts'

const RANGE_TIMEOUT_MS = 10_000
const WINDOW = 4
const STALL_MS = 30_000
/** A finished file waits this long for its bundle to be unpacked; a part that long untouched is of no use to anybody. */
const KEEP_FINISHED_MS = 10 * 60_000
const KEEP_PARTS_MS = 24 * 60 * 60_000
/** Answer of `#fetchInto`: nothing was kept. */
const WRONG_PART = -1
const DIGEST = /^sha256:([0-9a-f]{64})$/

export interface ArtifactSourceOptions {
  /** Private to this object; made when missing. */
  readonly folder: string
  readonly link: Pick<NatsLink, 'request' | 'whenUp'>
  readonly log: CommandLog
  /** Bytes per request, default and maximum 512 KiB. */
  readonly rangeBytes?: number
  /** Gives up after so long without a byte; default 30,000. What has come stays for the next try. */
  readonly stallMs?: number
}

interface Fetching {
  readonly digest: string
  readonly bytes: number
  readonly file: fs.FileHandle
  readonly hash: Hash
  /** Bytes on the disk and in the hash. */
  position: number
}

/**
 * Artifacts from the controller over NATS: ranges, a few in flight, written in order into `<hex>.part`. A fetch that was cut goes
 * on where it ended, in the same call or in a later one; the file is handed out only when its digest is right.
 */
export class NatsArtifactSource {
  readonly #options: ArtifactSourceOptions
  readonly #rangeBytes: number
  readonly #stallMs: number
  readonly #busy = new Map<string, Promise<unknown>>()

  private constructor(options: ArtifactSourceOptions) {
    this.#options = options
    this.#rangeBytes = Math.min(
      options.rangeBytes ?? LIMITS.artifactRangeBytesMax,
      LIMITS.artifactRangeBytesMax,
    )
    this.#stallMs = options.stallMs ?? STALL_MS
  }

  /** @throws Fault `STORAGE` */
  static async open(options: ArtifactSourceOptions): Promise<NatsArtifactSource> {
    const source = new NatsArtifactSource(options)
    try {
      await fs.mkdir(options.folder, { recursive: true, mode: 0o700 })
      await source.#prune(0)
    } catch (error) {
      throw storageFault(error, `cannot use the artifact folder ${options.folder}`)
    }
    return source
  }

  /**
   * Path of a file with exactly these bytes, verified; it stays for ten minutes.
   *
   * @throws Fault `ARTIFACT_UNAVAILABLE` (nobody has it, or no progress for `stallMs`), `ARTIFACT_DIGEST` (what came was wrong; it is
   *   deleted), `STORAGE`; the signal's reason
   */
  async fetch(digest: string, bytes: number, signal: AbortSignal): Promise<string> {
    const hex = DIGEST.exec(digest)?.[1]
    if (hex === undefined) throw new RangeError(`not a digest: ${digest}`)
    // One at a time per artifact: the second finds the file that the first has made.
    while (this.#busy.has(hex)) await this.#busy.get(hex)
    signal.throwIfAborted()
    const work = this.#fetch(hex, digest, bytes, signal)
    const settled = work.then(
      () => this.#busy.delete(hex),
      () => this.#busy.delete(hex),
    )
    this.#busy.set(hex, settled)
    return work
  }

  async #fetch(hex: string, digest: string, bytes: number, signal: AbortSignal): Promise<string> {
    const { folder, log } = this.#options
    const target = join(folder, hex)
    const part = `${target}.part`
    const startedMs = performance.now()
    try {
      await this.#prune(KEEP_FINISHED_MS)
      if (await holds(target, digest, bytes, signal)) return target
      let resumedAt = await this.#fetchInto(part, digest, bytes, signal)
      // What an earlier fetch left may be damaged (a power cut); that is not the controller's fault: once more from nothing.
      if (resumedAt === WRONG_PART) resumedAt = await this.#fetchInto(part, digest, bytes, signal)
      await fs.rename(part, target)
      await syncFolder(fs, folder)
      const tookMs = Math.round(performance.now() - startedMs)
      log.info({ digest, bytes, resumedAt, tookMs }, 'artifact fetched')
      return target
    } catch (error) {
      if (signal.aborted) throw error
      const fault = Fault.is(error) ? error : storageFault(error, `cannot store ${digest}`)
      // A full disk stops more than this: give back what the part holds.
      const useless = fault.code === 'ARTIFACT_DIGEST' || fault.code === 'STORAGE'
      if (useless) await fs.rm(part, { force: true }).catch(() => {})
      throw fault
    }
  }

  /**
   * Completes the part file.
   *
   * @returns how many bytes were there before, or `WRONG_PART` when those were wrong; the file is then empty
   */
  async #fetchInto(
    part: string,
    digest: string,
    bytes: number,
    signal: AbortSignal,
  ): Promise<number> {
    const file = await fs.open(part, 'a+', 0o600)
    try {
      const fetching = await resume(file, digest, bytes, signal)
      const resumedAt = fetching.position
      await this.#fill(fetching, signal)
      if (`sha256:${fetching.hash.digest('hex')}` !== digest) {
        if (resumedAt === 0) throw wrongDigest(digest, bytes)
        await file.truncate(0)
        return WRONG_PART
      }
      await file.sync()
      return resumedAt
    } finally {
      await file.close()
    }
  }

  /** Fetches until complete; tries again after every failure that may pass, until nothing has come for `stallMs`. */
  async #fill(fetching: Fetching, signal: AbortSignal): Promise<void> {
    let progressMs = performance.now()
    for (let failures = 0; fetching.position < fetching.bytes;) {
      const before = fetching.position
      try {
        await this.#fillOnce(fetching, signal)
      } catch (error) {
        signal.throwIfAborted()
        const mayPass = Fault.is(error, 'NODE_OFFLINE') || Fault.is(error, 'NODE_TIMEOUT')
        if (!mayPass) throw error
        if (fetching.position > before) {
          failures = 0
          progressMs = performance.now()
        }
        const leftMs = this.#stallMs - (performance.now() - progressMs)
        if (leftMs <= 0) {
          throw new Fault(
            'ARTIFACT_UNAVAILABLE',
            `${fetching.position} of ${fetching.bytes} bytes have come; ${error.message}`,
            { digest: fetching.digest, position: fetching.position },
            { cause: error },
          )
        }
        const waitMs = Math.min(leftMs, backoffMs(failures, 50, 2_000))
        failures += 1
        this.#options.log.debug({ err: error, position: fetching.position }, 'artifact interrupted')
        await sleep(waitMs, undefined, { signal })
        await this.#untilUp(leftMs, signal)
      }
    }
  }

  /** Keeps `WINDOW` requests in flight and writes the answers in order. */
  async #fillOnce(fetching: Fetching, signal: AbortSignal): Promise<void> {
    const stop = new AbortController()
    const both = AbortSignal.any([signal, stop.signal])
    const window: Promise<Uint8Array>[] = []
    let asked = fetching.position
    try {
      while (fetching.position < fetching.bytes) {
        while (window.length < WINDOW && asked < fetching.bytes) {
          const bytes = Math.min(this.#rangeBytes, fetching.bytes - asked)
          const answer = this.#range(
            fetching,
            { digest: fetching.digest, offset: asked, bytes },
            both,
          )
          // Awaited in order below; one that fails earlier must not count as unhandled until then.
          answer.catch(() => {})
          window.push(answer)
          asked += bytes
        }
        const chunk = await window.shift()
        if (chunk === undefined) throw new RangeError('an empty window')
        await fetching.file.appendFile(chunk)
        fetching.hash.update(chunk)
        fetching.position += chunk.length
      }
    } finally {
      stop.abort()
    }
  }

  async #range(fetching: Fetching, range: ArtifactRange, signal: AbortSignal): Promise<Uint8Array> {
    const options = { timeoutMs: RANGE_TIMEOUT_MS }
    const payload = JSON.stringify(range)
    const message = await this.#options.link.request(subjects.artifact, payload, options, signal)
    const header = (name: string) => message.headers?.get(name) ?? ''
    const code = header(ARTIFACT_HEADERS.code)
    if (code !== '') {
      const text = `the controller cannot give it: ${code} ${header(ARTIFACT_HEADERS.message)}`
      const retry = isFaultCode(code) && code === 'NODE_TIMEOUT'
      throw new Fault(retry ? 'NODE_TIMEOUT' : 'ARTIFACT_UNAVAILABLE', text, { ...range })
    }
    const total = Number(header(ARTIFACT_HEADERS.total))
    if (total !== fetching.bytes || message.data.length !== range.bytes) {
      throw new Fault(
        'ARTIFACT_DIGEST',
        `the controller's artifact has ${total} bytes, the command says ${fetching.bytes}; ` +
          `${range.bytes} were asked for at ${range.offset}, ${message.data.length} came`,
        { ...range },
      )
    }
    return message.data
  }

  /** Waits for the broker, but not longer than there is patience; whoever asks next then says why it failed. */
  async #untilUp(limitMs: number, signal: AbortSignal): Promise<void> {
    const limit = timeLimit(Math.max(1, Math.ceil(limitMs)))
    await this.#options.link.whenUp(AbortSignal.any([signal, limit])).catch(() => {})
    signal.throwIfAborted()
  }

  /** What goes away meanwhile (other fetches rename and remove theirs), or stays, is no reason for a fetch to fail. */
  async #prune(keepFinishedMs: number): Promise<void> {
    const { folder } = this.#options
    for (const name of await fs.readdir(folder)) {
      if (this.#busy.has(name.slice(0, 64))) continue
      const path = join(folder, name)
      const keepMs = name.endsWith('.part') ? KEEP_PARTS_MS : keepFinishedMs
      const found = await fs.stat(path).catch(() => undefined)
      if (found === undefined || Date.now() - found.mtimeMs <= keepMs) continue
      await fs.rm(path, { force: true }).catch(() => undefined)
    }
  }
}

/** Where an earlier fetch ended: its bytes are hashed again, for they may be damaged. */
async function resume(
  file: fs.FileHandle,
  digest: string,
  bytes: number,
  signal: AbortSignal,
): Promise<Fetching> {
  const hash = createHash('sha256')
  const { size } = await file.stat()
  if (size > bytes) {
    await file.truncate(0)
    return { digest, bytes, file, hash, position: 0 }
  }
  await hashInto(hash, file, size, signal)
  return { digest, bytes, file, hash, position: size }
}

async function holds(
  path: string,
  digest: string,
  bytes: number,
  signal: AbortSignal,
): Promise<boolean> {
  let file: fs.FileHandle
  try {
    file = await fs.open(path, 'r+')
  } catch {
    return false
  }
  try {
    const hash = createHash('sha256')
    const { size } = await file.stat()
    if (size === bytes) await hashInto(hash, file, size, signal)
    if (`sha256:${hash.digest('hex')}` === digest) {
      const now = new Date()
      await file.utimes(now, now)
      return true
    }
  } finally {
    await file.close()
  }
  await fs.rm(path, { force: true })
  return false
}

async function hashInto(
  hash: Hash,
  file: fs.FileHandle,
  size: number,
  signal: AbortSignal,
): Promise<void> {
  if (size === 0) return
  for await (const chunk of file.createReadStream({ start: 0, end: size - 1, autoClose: false })) {
    signal.throwIfAborted()
    hash.update(chunk)
  }
}

function wrongDigest(digest: string, bytes: number): Fault {
  return new Fault('ARTIFACT_DIGEST', `what came is not artifact ${digest}; it was deleted`, {
    digest,
    bytes,
  })
}
