import { randomBytes } from 'node:crypto'
import { chmod, mkdir, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import { syncFolder } from '../durable.ts'
import { unpackBundle, type UnpackLimits } from './unpack.ts'

/** Where bundles come from; declared here because this is who needs it. */
export interface ArtifactSource {
  /**
   * Path of a file that holds exactly the artifact's bytes, verified against `digest`. It stays at least until the promise of
   * the `ensure` that asked for it settles.
   *
   * @throws Fault `ARTIFACT_UNAVAILABLE`, `ARTIFACT_DIGEST`, `STORAGE`; the signal's reason
   */
  fetch(digest: string, bytes: number, signal: AbortSignal): Promise<string>
}

export interface Artifact {
  /** `sha256:<64 hex digits>` */
  readonly digest: string
  readonly bytes: number
}

export interface BundleStoreOptions {
  /** Made when missing. */
  readonly folder: string
  readonly source: ArtifactSource
  /** Default: those of shared/limits.ts. */
  readonly limits?: UnpackLimits
}

const DIGEST = /^sha256:([0-9a-f]{64})$/
const TEMPORARY = '.new-'
const ABSENT = ['ENOENT']
/** Which of the two is up to the file system. */
const TAKEN = ['ENOTEMPTY', 'EEXIST']

interface Work {
  readonly result: Promise<string>
  readonly giveUp: AbortController
  /** Callers that still wait; the last one to leave ends the work. */
  waiting: number
}

/** Folders with functions' files, `<folder>/<hex>/`, each there completely or not at all. */
export class BundleStore {
  readonly #folder: string
  readonly #source: ArtifactSource
  readonly #limits: UnpackLimits
  readonly #present = new Set<string>()
  readonly #work = new Map<string, Work>()

  private constructor({ folder, source, limits }: BundleStoreOptions) {
    this.#folder = folder
    this.#source = source
    this.#limits = limits ?? {
      bytesMax: LIMITS.bundleBytesMax,
      filesMax: LIMITS.bundleFilesMax,
    }
  }

  /** Reads what is there and removes what a crash left half done. @throws Fault `STORAGE` */
  static async open(options: BundleStoreOptions): Promise<BundleStore> {
    const store = new BundleStore(options)
    try {
      // Others on this host have no business in here; a handler gets its own bundle mounted.
      await mkdir(store.#folder, { recursive: true, mode: 0o700 })
      await chmod(store.#folder, 0o700)
      for (const name of await readdir(store.#folder)) {
        if (/^[0-9a-f]{64}$/.test(name)) store.#present.add(name)
        else if (name.startsWith(TEMPORARY)) await remove(join(store.#folder, name))
      }
    } catch (cause) {
      throw storageFault(cause, `cannot use the bundle folder ${store.#folder}`)
    }
    return store
  }

  /** Folder of a bundle that is here; undefined when it would have to be fetched. */
  get(digest: string): string | undefined {
    const hex = hexOf(digest)
    return this.#present.has(hex) ? join(this.#folder, hex) : undefined
  }

  /**
   * The bundle's folder; fetched and unpacked when it is not here. Callers at the same time share one work, which goes on
   * until the last of them gives up.
   *
   * @throws Fault `BUNDLE_INVALID` (not a bundle, too large, escapes its folder), `STORAGE`, and those of the source
   */
  async ensure(artifact: Artifact, signal: AbortSignal): Promise<string> {
    signal.throwIfAborted()
    const present = this.get(artifact.digest)
    if (present !== undefined) return present
    const work = this.#join(artifact)
    const left = Promise.withResolvers<never>()
    const onAbort = (): void => left.reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      return await Promise.race([work.result, left.promise])
    } finally {
      signal.removeEventListener('abort', onAbort)
      work.waiting--
      if (work.waiting === 0) work.giveUp.abort()
    }
  }

  /**
   * Removes the bundles that are here now, but those in use (and those being made); resolves to the digests removed.
   *
   * @param isUsed - asked of each in the moment before it goes: until then somebody may have come who wants it
   */
  async retain(isUsed: (digest: string) => boolean): Promise<readonly string[]> {
    const removed: string[] = []
    // A copy: what is made meanwhile is for somebody who asked for it.
    const present = [...this.#present]
    for (const hex of present) {
      if (this.#work.has(hex) || isUsed(`sha256:${hex}`)) continue
      this.#present.delete(hex)
      const out = this.#temporary()
      // Renamed first: what a crash leaves of the removal must not look like a bundle.
      await rename(join(this.#folder, hex), out).catch((error: unknown) => {
        if (!hasCode(error, ABSENT)) this.#present.add(hex)
        throw error
      })
      await remove(out)
      removed.push(`sha256:${hex}`)
    }
    return removed
  }

  #join(artifact: Artifact): Work {
    const hex = hexOf(artifact.digest)
    const running = this.#work.get(hex)
    if (running !== undefined && !running.giveUp.signal.aborted) {
      running.waiting++
      return running
    }
    const giveUp = new AbortController()
    const result = this.#make(artifact, giveUp.signal)
    const work: Work = { result, giveUp, waiting: 1 }
    this.#work.set(hex, work)
    const end = (): void => {
      if (this.#work.get(hex) === work) this.#work.delete(hex)
    }
    result.then(end, end)
    return work
  }

  async #make({ digest, bytes }: Artifact, signal: AbortSignal): Promise<string> {
    const hex = hexOf(digest)
    const file = await this.#source.fetch(digest, bytes, signal)
    const temporary = this.#temporary()
    const target = join(this.#folder, hex)
    try {
      await mkdir(temporary, { mode: 0o755 })
      await unpackBundle(file, temporary, this.#limits, signal)
      signal.throwIfAborted()
      if (!this.#present.has(hex)) await putOnce(temporary, target)
      await syncFolder(this.#folder)
      this.#present.add(hex)
      return target
    } catch (error) {
      if (signal.aborted || Fault.is(error)) throw error
      throw storageFault(error, `cannot unpack bundle ${digest} in ${this.#folder}`)
    } finally {
      await remove(temporary)
    }
  }

  #temporary(): string {
    return join(this.#folder, `${TEMPORARY}${randomBytes(8).toString('hex')}`)
  }
}

function hexOf(digest: string): string {
  const hex = DIGEST.exec(digest)?.[1]
  if (hex === undefined) throw new RangeError(`not a digest: ${digest}`)
  return hex
}

/** Nothing but a whole bundle ever gets such a name: what has it may stay, e.g. because it could not be written through at first. */
async function putOnce(temporary: string, target: string): Promise<void> {
  await rename(temporary, target).catch((error: unknown) => {
    if (!hasCode(error, TAKEN)) throw error
  })
}

function hasCode(error: unknown, codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code))
}

/** Also a tree whose folders lost their write bit. */
async function remove(path: string): Promise<void> {
  const there = await stat(path).then(
    () => true,
    () => false,
  )
  if (there) await rm(path, { recursive: true, force: true, maxRetries: 3 })
}

function storageFault(cause: unknown, what: string): Fault {
  if (Fault.is(cause)) return cause
  const reason = cause instanceof Error ? cause.message : String(cause)
  return new Fault('STORAGE', `${what}: ${reason}`, {}, { cause })
}
