import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, readFile, readdir, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { Type, type Static } from 'typebox'
import { Value } from 'typebox/value'
import { Arch, Digest, Runtime } from '#shared/schemas/names.ts'

const Entry = Type.Object({
  runtime: Runtime,
  entry: Type.Optional(Type.String()),
  digest: Digest,
  bytes: Type.Integer({ minimum: 1 }),
  arch: Type.Union([Arch, Type.Literal('any')]),
})
export type CacheEntry = Static<typeof Entry>

export interface CacheOptions {
  readonly folder: string
  readonly bytesMax: number
  readonly keepMs: number
}

/**
 * Bundles by source hash: `<hash>.json` says what was built, `<digest>.tar.zst` are the bytes. A file that is damaged or gone
 * means "not built yet", never an error.
 */
export class BundleCache {
  readonly #options: CacheOptions

  constructor(options: CacheOptions) {
    this.#options = options
  }

  file(digest: string): string {
    return path.join(this.#options.folder, `${hex(digest)}.tar.zst`)
  }

  #noteFile(sourceHash: string): string {
    return path.join(this.#options.folder, `${hex(sourceHash)}.json`)
  }

  /** What was built from this source, when its bytes are still what they were. */
  async load(sourceHash: string): Promise<CacheEntry | undefined> {
    try {
      const entry: unknown = JSON.parse(await readFile(this.#noteFile(sourceHash), 'utf8'))
      if (!Value.Check(Entry, entry)) return undefined
      const file = this.file(entry.digest)
      if ((await digestOf(file)) !== entry.digest) return undefined
      const now = new Date()
      await utimes(file, now, now)
      return entry
    } catch {
      // Unreadable in whatever way: it is built again.
      return undefined
    }
  }

  /** Takes a finished bundle over (it is renamed into the cache) and drops the least recently used ones. */
  async save(sourceHash: string, entry: CacheEntry, bundle: string): Promise<void> {
    await mkdir(this.#options.folder, { recursive: true })
    await rename(bundle, this.file(entry.digest))
    const note = this.#noteFile(sourceHash)
    await writeFile(`${bundle}.json`, JSON.stringify(entry), { flush: true })
    await rename(`${bundle}.json`, note)
    await this.#trim(Date.now())
  }

  async #trim(nowMs: number): Promise<void> {
    const { folder, bytesMax, keepMs } = this.#options
    const names = await readdir(folder)
    const bundles: { name: string; bytes: number; usedMs: number }[] = []
    for (const name of names.filter((each) => each.endsWith('.tar.zst'))) {
      const stats = await stat(path.join(folder, name)).catch(() => undefined)
      if (stats) bundles.push({ name, bytes: stats.size, usedMs: stats.mtimeMs })
    }
    bundles.sort((a, b) => b.usedMs - a.usedMs)
    let total = 0
    for (const { name, bytes, usedMs } of bundles) {
      total += bytes
      if (total > bytesMax && nowMs - usedMs > keepMs) {
        await rm(path.join(folder, name), { force: true })
        // Its note goes as well: it is found to be empty by its next `load`, and small.
      }
    }
  }
}

async function digestOf(file: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(file), hash)
  return `sha256:${hash.digest('hex')}`
}

function hex(digest: string): string {
  return digest.slice(digest.indexOf(':') + 1)
}
