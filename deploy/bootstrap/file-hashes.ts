import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { Type, type Static } from 'typebox'
import { Check } from 'typebox/value'

const Entry = Type.Object({ stamp: Type.String(), sha256: Type.String() })
type Entry = Static<typeof Entry>
const Kept = Type.Record(Type.String(), Entry)

/**
 * SHA-256 of files, kept from start to start: hashing Node's 120 MB each time is most of what a start waits for. An entry
 * holds as long as size, inode, and times of change do; the kernel's own (ctime) cannot be set back by hand.
 */
export class FileHashes {
  readonly #file: string
  readonly #kept: Readonly<Record<string, Entry>>
  readonly #used: Record<string, Entry> = {}

  private constructor(file: string, kept: Readonly<Record<string, Entry>>) {
    this.#file = file
    this.#kept = kept
  }

  /** A file that is missing or broken is an empty one. */
  static async load(file: string): Promise<FileHashes> {
    try {
      const kept: unknown = JSON.parse(await readFile(file, 'utf8'))
      return new FileHashes(file, Check(Kept, kept) ? kept : {})
    } catch {
      return new FileHashes(file, {})
    }
  }

  async get(path: string): Promise<string> {
    const { size, ino, mtimeNs, ctimeNs } = await stat(path, { bigint: true })
    const stamp = [size, ino, mtimeNs, ctimeNs].join(' ')
    const kept = this.#kept[path]
    const sha256 = kept?.stamp === stamp ? kept.sha256 : await hashFile(path)
    this.#used[path] = { stamp, sha256 }
    return sha256
  }

  /** Writes what was asked for since `load`; the rest is forgotten. */
  async save(): Promise<void> {
    await mkdir(dirname(this.#file), { recursive: true })
    await writeFile(`${this.#file}.new`, JSON.stringify(this.#used))
    await rename(`${this.#file}.new`, this.#file)
  }
}

async function hashFile(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return hash.digest('hex')
}
