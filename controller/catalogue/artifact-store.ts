import { createHash } from 'node:crypto'
import { unlinkSync } from 'node:fs'
import { mkdir, open, readdir, rename, rm, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '#shared/fault.ts'

const COPY_BYTES = 256 * 1024
const HEX = /^[0-9a-f]{64}$/
const DIGEST = /^sha256:([0-9a-f]{64})$/

export interface ArtifactFile {
  readonly digest: string
  readonly bytes: number
}

/** An artifact that is not swept away until this is disposed. */
export type HeldArtifact = ArtifactFile & Disposable

/**
 * Bytes by what they are: `sha256/<first 2 hex digits>/<hex>`.
 *
 * A file that has its name is whole: it is written aside, verified, fsynced and only then renamed.
 */
export class ArtifactStore {
  readonly #folder: string
  readonly #held = new Map<string, number>()
  #temporary = 0

  /** Makes the folder when needed, and removes what a crash left half written. */
  static async open(folder: string): Promise<ArtifactStore> {
    await rm(join(folder, 'tmp'), { recursive: true, force: true })
    await mkdir(join(folder, 'tmp'), { recursive: true, mode: 0o700 })
    await mkdir(join(folder, 'sha256'), { recursive: true, mode: 0o700 })
    return new ArtifactStore(folder)
  }

  private constructor(folder: string) {
    this.#folder = folder
  }

  /** Before it is written, and until the catalogue names it, an artifact is held: it is not swept away. */
  hold({ digest, bytes }: ArtifactFile): HeldArtifact {
    this.#held.set(digest, (this.#held.get(digest) ?? 0) + 1)
    let released = false
    return {
      digest,
      bytes,
      [Symbol.dispose]: () => {
        if (released) return
        released = true
        const left = (this.#held.get(digest) ?? 1) - 1
        if (left === 0) this.#held.delete(digest)
        else this.#held.set(digest, left)
      },
    }
  }

  /**
   * Copies a file in. It is durable when this resolves. One that is there already stays.
   *
   * @throws Fault `ARTIFACT_DIGEST` when its bytes are not what `digest` says, `STORAGE`
   */
  async put(artifact: HeldArtifact, file: string, signal?: AbortSignal): Promise<void> {
    const target = this.#path(artifact.digest)
    if (await this.#present(target, artifact.bytes)) return
    const folder = join(target, '..')
    const aside = join(this.#folder, 'tmp', `${process.pid}-${(this.#temporary += 1)}`)
    try {
      await copyVerified(file, aside, artifact, signal)
      await mkdir(folder, { recursive: true, mode: 0o700 })
      await rename(aside, target)
      await syncFolder(folder)
      await syncFolder(join(this.#folder, 'sha256'))
    } catch (error) {
      await rm(aside, { force: true })
      signal?.throwIfAborted()
      if (Fault.is(error)) throw error
      const why = error instanceof Error ? error.message : String(error)
      throw new Fault('STORAGE', `cannot keep ${artifact.digest}: ${why}`, {}, { cause: error })
    }
  }

  /**
   * Up to `bytes` bytes from `offset`; fewer at the end, none at or behind it.
   *
   * @throws Fault `ARTIFACT_UNAVAILABLE`
   */
  async readRange(
    digest: string,
    offset: number,
    bytes: number,
  ): Promise<{ readonly data: Buffer; readonly total: number }> {
    let handle
    try {
      handle = await open(this.#path(digest), 'r')
    } catch (error) {
      throw new Fault('ARTIFACT_UNAVAILABLE', `no artifact ${digest} here`, {}, { cause: error })
    }
    try {
      const { size } = await handle.stat()
      const wanted = Math.max(0, Math.min(bytes, size - offset))
      const data = Buffer.allocUnsafe(wanted)
      let filled = 0
      while (filled < wanted) {
        const { bytesRead } = await handle.read(data, filled, wanted - filled, offset + filled)
        if (bytesRead === 0) break
        filled += bytesRead
      }
      return { data: data.subarray(0, filled), total: size }
    } finally {
      await handle.close()
    }
  }

  async has(digest: string): Promise<boolean> {
    return (await statOrNothing(this.#path(digest))) !== undefined
  }

  /**
   * Removes files that `wanted` does not know, are older than `olderThanMs`, and are not held.
   *
   * @returns their digests
   */
  async sweep(
    wanted: (digest: string) => Promise<boolean>,
    { olderThanMs, nowMs }: { readonly olderThanMs: number; readonly nowMs: number },
  ): Promise<string[]> {
    const removed: string[] = []
    const root = join(this.#folder, 'sha256')
    for (const shard of await readdir(root)) {
      for (const hex of await readdir(join(root, shard))) {
        const file = join(root, shard, hex)
        const digest = `sha256:${hex}`
        const found = await statOrNothing(file)
        if (!HEX.test(hex) || found === undefined) continue
        if (nowMs - found.mtimeMs < olderThanMs || (await wanted(digest))) continue
        // No await between the look and the deed: whoever holds it from here on writes it anew.
        if (this.#held.has(digest)) continue
        unlinkSync(file)
        removed.push(digest)
      }
    }
    return removed
  }

  #path(digest: string): string {
    const hex = DIGEST.exec(digest)?.[1]
    if (hex === undefined) throw new RangeError(`not a digest: ${digest}`)
    return join(this.#folder, 'sha256', hex.slice(0, 2), hex)
  }

  async #present(file: string, bytes: number): Promise<boolean> {
    const found = await statOrNothing(file)
    if (found?.size !== bytes) return false
    await utimes(file, new Date(), new Date())
    return true
  }
}

async function copyVerified(
  from: string,
  to: string,
  { digest, bytes }: ArtifactFile,
  signal: AbortSignal | undefined,
): Promise<void> {
  const hash = createHash('sha256')
  const chunk = Buffer.allocUnsafe(COPY_BYTES)
  const source = await open(from, 'r')
  try {
    const target = await open(to, 'wx', 0o600)
    try {
      let copied = 0
      for (;;) {
        signal?.throwIfAborted()
        const { bytesRead } = await source.read(chunk, 0, chunk.length, copied)
        if (bytesRead === 0) break
        hash.update(chunk.subarray(0, bytesRead))
        await target.writeFile(chunk.subarray(0, bytesRead))
        copied += bytesRead
        if (copied > bytes) break
      }
      const found = `sha256:${hash.digest('hex')}`
      if (found !== digest || copied !== bytes) {
        throw new Fault('ARTIFACT_DIGEST', `${digest} was announced, the bytes are ${found}`, {
          digest,
          found,
        })
      }
      await target.sync()
    } finally {
      await target.close()
    }
  } finally {
    await source.close()
  }
}

async function statOrNothing(file: string): Promise<{ size: number; mtimeMs: number } | undefined> {
  try {
    return await stat(file)
  } catch {
    return undefined
  }
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
