import { createHash } from 'node:crypto'
import { appendFile, mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { LIMITS } from '#shared/limits.ts'
import type { LogLine } from '#shared/schemas/health.ts'
import type { LogsReply } from '#shared/schemas/wire.ts'
import { cutText } from '#shared/text.ts'
import type { CommandLog } from './log.ts'

const RING_BYTES_MAX = 64 * 1024
const FILE_BYTES_MAX = 512 * 1024
const PENDING_BYTES_MAX = 4 * 1024 * 1024
const WRITE_EVERY_MS = 200

export interface LogBookOptions {
  /** Made when missing; two files per function at most. */
  readonly folder: string
  readonly log: CommandLog
  /** In memory, per function; default 64 KiB. */
  readonly ringBytesMax?: number
  /** Per file, two files per function; default 512 KiB. */
  readonly fileBytesMax?: number
}

interface Entry {
  readonly line: LogLine
  /** As JSON, without line end. */
  readonly text: string
  readonly bytes: number
}

interface Page {
  /** Newest last. */
  ring: Entry[]
  ringBytes: number
  /** True while the ring holds every line of the function, so that the files need not be read. */
  ringComplete: boolean
  /** Not in the file yet. */
  pending: string[]
  pendingBytes: number
  /** Undefined until the file was looked at. */
  fileBytes: number | undefined
  /** Lines lost because they came faster than the disk took them. */
  dropped: number
}

/**
 * What functions wrote: the newest lines in memory, more in two bounded files per function, which survive a restart. Taking a line
 * never waits; lines that come faster than the disk takes them are dropped and counted.
 */
export class LogBook implements AsyncDisposable {
  readonly #options: Required<LogBookOptions>
  readonly #pages = new Map<string, Page>()
  readonly #listeners = new Set<(line: LogLine) => void>()
  #pendingBytes = 0
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()
  #failed = false

  private constructor(options: LogBookOptions) {
    this.#options = { ringBytesMax: RING_BYTES_MAX, fileBytesMax: FILE_BYTES_MAX, ...options }
  }

  static async open(options: LogBookOptions): Promise<LogBook> {
    await mkdir(options.folder, { recursive: true, mode: 0o700 })
    return new LogBook(options)
  }

  /** Takes a line; text above 16 KiB is cut. */
  add(line: LogLine): void {
    const text = cutText(line.text, LIMITS.logLineBytesMax)
    const kept = text === line.text ? line : { ...line, text }
    const entry = entryOf(kept, JSON.stringify(kept))
    const page = this.#page(line.fn)
    page.ring.push(entry)
    page.ringBytes += entry.bytes
    let over = 0
    while (page.ringBytes > this.#options.ringBytesMax && over < page.ring.length - 1) {
      page.ringBytes -= page.ring[over]?.bytes ?? 0
      over += 1
    }
    if (over > 0) {
      page.ring.splice(0, over)
      page.ringComplete = false
    }
    if (this.#pendingBytes + entry.bytes > PENDING_BYTES_MAX) {
      page.dropped += 1
    } else {
      page.pending.push(entry.text)
      page.pendingBytes += entry.bytes
      this.#pendingBytes += entry.bytes
      this.#timer ??= setTimeout(() => this.#write(), WRITE_EVERY_MS)
    }
    for (const listener of this.#listeners) listener(kept)
  }

  /** Calls back for every line from now on; must not throw. */
  onLine(listener: (line: LogLine) => void): Disposable {
    this.#listeners.add(listener)
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) }
  }

  /** The newest `count` lines, oldest first, as many as fit into `bytesMax`; `dropped` counts those that are lost or did not fit. */
  async tail(fn: string, count: number, bytesMax: number): Promise<LogsReply> {
    const page = this.#page(fn)
    const entries =
      page.ring.length >= count || page.ringComplete ? page.ring : await this.#read(fn)
    const wanted = count === 0 ? [] : entries.slice(-count)
    let from = wanted.length
    for (let bytes = 0; from > 0; from -= 1) {
      bytes += wanted[from - 1]?.bytes ?? 0
      if (bytes > bytesMax) break
    }
    return { lines: wanted.slice(from).map(({ line }) => line), dropped: page.dropped + from }
  }

  /** Removes what belongs to functions that are not in the list. */
  async retain(fns: readonly string[]): Promise<void> {
    const kept = new Set(fns)
    const names = new Set(fns.map(fileName))
    for (const fn of this.#pages.keys()) {
      if (kept.has(fn)) continue
      this.#pendingBytes -= this.#pages.get(fn)?.pendingBytes ?? 0
      this.#pages.delete(fn)
    }
    await this.#writing
    for (const name of await readdir(this.#options.folder)) {
      if (names.has(name.replace(/\.old$/, ''))) continue
      await rm(join(this.#options.folder, name), { force: true })
    }
  }

  /** Writes what waits; resolves when it is in the files. */
  async flush(): Promise<void> {
    this.#write()
    await this.#writing
  }

  async close(): Promise<void> {
    await this.flush()
    clearTimeout(this.#timer)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #page(fn: string): Page {
    let page = this.#pages.get(fn)
    if (page === undefined) {
      page = {
        ring: [],
        ringBytes: 0,
        // An earlier life of the agent may have left a file.
        ringComplete: false,
        pending: [],
        pendingBytes: 0,
        fileBytes: undefined,
        dropped: 0,
      }
      this.#pages.set(fn, page)
    }
    return page
  }

  #write(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#writing = this.#writing
      .then(() => this.#writeAll())
      .catch((error: unknown) => {
        // Logged once: a full disk would otherwise fill the agent's own log.
        if (!this.#failed) this.#options.log.error({ err: error }, 'function logs not written')
        this.#failed = true
      })
  }

  async #writeAll(): Promise<void> {
    const errors: unknown[] = []
    for (const [fn, page] of this.#pages) {
      if (page.pending.length === 0) continue
      const text = Buffer.from(`${page.pending.join('\n')}\n`)
      const lines = page.pending.length
      this.#pendingBytes -= page.pendingBytes
      page.pending = []
      page.pendingBytes = 0
      try {
        await this.#append(fn, page, text)
        this.#failed = false
      } catch (error) {
        page.dropped += lines
        // Whatever is there now: half a line, or somebody has taken the file away.
        page.fileBytes = undefined
        // The others' files may be all right.
        errors.push(error)
      }
    }
    if (errors.length > 0) throw errors[0]
  }

  async #append(fn: string, page: Page, text: Buffer): Promise<void> {
    const path = join(this.#options.folder, fileName(fn))
    let torn = ''
    if (page.fileBytes === undefined) {
      page.fileBytes = await sizeOf(path)
      // A power cut may have left half a line there: the next one must not be glued to it.
      if (page.fileBytes > 0) torn = '\n'
    }
    if (page.fileBytes > 0 && page.fileBytes + text.length > this.#options.fileBytesMax) {
      await rename(path, `${path}.old`).catch(unlessAbsent)
      page.fileBytes = 0
    }
    // One flush may be larger than a file may be: its newest part stays.
    const kept = text.subarray(-this.#options.fileBytesMax)
    await appendFile(path, torn === '' ? kept : Buffer.concat([Buffer.from(torn), kept]), {
      mode: 0o600,
    })
    page.fileBytes += kept.length + torn.length
  }

  /** Everything the files have; lines cut in half (a power cut, a rotation) are passed over. */
  async #read(fn: string): Promise<readonly Entry[]> {
    await this.flush()
    const path = join(this.#options.folder, fileName(fn))
    const entries: Entry[] = []
    for (const file of [`${path}.old`, path]) {
      const content = await readFile(file, 'utf8').catch(() => '')
      for (const text of content.split('\n')) {
        const line = parseLine(text)
        if (line !== undefined) entries.push(entryOf(line, text))
      }
    }
    return entries
  }
}

function entryOf(line: LogLine, text: string): Entry {
  return { line, text, bytes: Buffer.byteLength(text) + 1 }
}

function unlessAbsent(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error
}

async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    ({ size }) => size,
    () => 0,
  )
}

function parseLine(text: string): LogLine | undefined {
  if (text === '') return undefined
  try {
    const line: LogLine = JSON.parse(text)
    return line
  } catch {
    return undefined
  }
}

/** Readable, unique, and short enough for any file system, whatever the function is called. */
function fileName(fn: string): string {
  const readable = fn.replaceAll('/', '~').slice(0, 100)
  return `${readable}-${createHash('sha256').update(fn).digest('hex').slice(0, 12)}.log`
}
