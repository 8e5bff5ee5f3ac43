import { createHash, randomInt } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { chmod, mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Type, type Static } from 'typebox'
import { Compile } from 'typebox/compile'
import { Fault } from '#shared/fault.ts'
import type { Assignment } from '#shared/schemas/command.ts'
import { Digest, FunctionName, ReleaseId, Runtime } from '#shared/schemas/names.ts'
import { placeCode } from './code.ts'
import { syncFolder, writeDurable } from './durable.ts'
import type { HandlerSpec } from './engine.ts'

const RECORD_FILE = 'handler.json'
const ID = /^[a-z0-9]{12}$/
/** `sun_path` of Linux has 108 bytes, the last one 0 (unix(7)). */
const SOCKET_PATH_BYTES_MAX = 107

/** What is written about a handler before it is started, so that any later agent knows what runs there. */
export const HandlerRecord = Type.Object({
  id: Type.String({ pattern: ID.source }),
  fn: FunctionName,
  release: ReleaseId,
  runtime: Runtime,
  /** Of the artifact: keeps its bundle from being removed. */
  digest: Digest,
  /** The unpacked bundle on the host, which its code is linked from. */
  bundleFolder: Type.String(),
  limits: Type.Object({
    memoryMiB: Type.Number(),
    cpus: Type.Number(),
    pids: Type.Number(),
  }),
  network: Type.Union([Type.Literal('none'), Type.Literal('outbound')]),
  specDigest: Type.String(),
  entry: Type.Optional(Type.String()),
  env: Type.Record(Type.String(), Type.String()),
  concurrency: Type.Integer(),
  timeoutMs: Type.Integer(),
  /** It takes one call in its life. */
  fresh: Type.Optional(Type.Literal(true)),
})
export type HandlerRecord = Static<typeof HandlerRecord>
const recordValidator = Compile(HandlerRecord)

/** A new handler for an assignment. `identity`: see `Engine.identity`; `id`: that of the spare it is made of. */
export function newRecord(
  assignment: Assignment,
  identity: string,
  bundleFolder: string,
  id = newHandlerId(),
): HandlerRecord {
  const { fn, release, runtime, entry, settings } = assignment
  return {
    id,
    fn,
    release,
    runtime,
    digest: assignment.artifact.digest,
    bundleFolder,
    limits: { memoryMiB: settings.memoryMiB, cpus: settings.cpus, pids: settings.pids },
    network: settings.network,
    specDigest: specDigestOf(assignment, identity),
    ...(entry === undefined ? {} : { entry }),
    env: settings.env,
    concurrency: settings.concurrency,
    timeoutMs: settings.timeoutMs,
    ...(settings.isolation === 'fresh' ? ({ fresh: true } as const) : {}),
  }
}

export function newHandlerId(): string {
  const letters = 'abcdefghijklmnopqrstuvwxyz0123456789'
  return Array.from({ length: 12 }, () => letters.charAt(randomInt(letters.length))).join('')
}

/**
 * Digest over all that makes two handlers interchangeable: what runs in them, what they may use, and what their runner was
 * told; and whether it takes more than one call. Settings that only the agent applies (replicas, queue, errors) are not in
 * it, so they change without a new handler.
 */
export function specDigestOf(assignment: Assignment, identity: string): string {
  const { fn, release, runtime, entry, artifact, settings } = assignment
  const { memoryMiB, cpus, pids, network, env, concurrency, timeoutMs } = settings
  const sortedEnv = Object.entries(env).toSorted(([a], [b]) => (a < b ? -1 : 1))
  const parts = [
    [fn, release, runtime, entry ?? null, artifact.digest, identity],
    [memoryMiB, cpus, pids, network, concurrency, timeoutMs],
    sortedEnv,
    ...(settings.isolation === 'fresh' ? ['fresh'] : []),
  ]
  return `sha256:${createHash('sha256').update(JSON.stringify(parts)).digest('hex')}`
}

export function specOf(record: HandlerRecord, root: string): HandlerSpec {
  const { id, fn, release, runtime, limits, network, specDigest } = record
  return { id, fn, release, runtime, folder: join(root, id), limits, network, specDigest }
}

/**
 * The folders of all handlers, `<root>/<handler id>/`, each with its socket `s`, its record and its function's code `fn`. That
 * of a spare has neither record nor code.
 */
export class HandlerFolders {
  readonly root: string

  private constructor(root: string) {
    this.root = root
  }

  /**
   * @throws Fault `CONFIG_INVALID` when sockets would have too long a path, `STORAGE`
   */
  static async open(root: string): Promise<HandlerFolders> {
    const bytes = Buffer.byteLength(join(root, 'x'.repeat(12), 's'))
    if (bytes > SOCKET_PATH_BYTES_MAX) {
      throw new Fault(
        'CONFIG_INVALID',
        `the path ${root} is ${bytes - SOCKET_PATH_BYTES_MAX} bytes too long for Unix sockets below it: set SHOAL_DATA (or SHOAL_AGENT_DATA) to a shorter path`,
        { root },
      )
    }
    try {
      // Only this user may reach the sockets inside; a container gets its own folder mounted, past this one.
      await mkdir(root, { recursive: true, mode: 0o700 })
      await chmod(root, 0o700)
    } catch (cause) {
      throw new Fault('STORAGE', `cannot use the folder ${root}`, { root }, { cause })
    }
    return new HandlerFolders(root)
  }

  folderOf(id: string): string {
    return join(this.root, id)
  }

  socketPath(id: string): string {
    return join(this.folderOf(id), 's')
  }

  /** Makes a handler's folder with its record, durable. @throws Fault `STORAGE` */
  async create(record: HandlerRecord): Promise<void> {
    await this.createSpare(record.id)
    try {
      await this.write(record)
      await syncFolder(this.root)
    } catch (error) {
      await this.remove(record.id).catch(() => undefined)
      throw error
    }
  }

  /** Makes a spare's folder: to the next agent, what runs there is nobody's. @throws Fault `STORAGE` */
  async createSpare(id: string): Promise<void> {
    await this.#store(id, async (folder) => {
      await mkdir(folder)
      // Whatever the umask: the handler's own user must get in.
      await chmod(folder, 0o755)
    })
  }

  /** Writes a handler's record into its folder, durable. @throws Fault `STORAGE` */
  async write(record: HandlerRecord): Promise<void> {
    await this.#store(record.id, (folder) =>
      writeDurable(join(folder, RECORD_FILE), JSON.stringify(record)),
    )
  }

  /** Puts the function's code into its handler's folder, unless it is there. @throws Fault `STORAGE` */
  async place({ id, bundleFolder }: HandlerRecord): Promise<void> {
    await this.#store(id, (folder) => placeCode(bundleFolder, folder))
  }

  /** Ids of all folders, and the records of those that have a readable one. */
  read(): { readonly ids: readonly string[]; readonly records: readonly HandlerRecord[] } {
    const ids = readdirSync(this.root).filter((name) => ID.test(name))
    const records = ids.map((id) => this.#record(id)).filter((record) => record !== undefined)
    return { ids, records }
  }

  /** A folder that is gone is no error. @throws Fault `STORAGE` */
  async remove(id: string): Promise<void> {
    const folder = this.folderOf(id)
    try {
      await rm(folder, { recursive: true, force: true, maxRetries: 3 })
    } catch (cause) {
      throw new Fault('STORAGE', `cannot remove ${folder}`, { folder }, { cause })
    }
  }

  async #store(id: string, work: (folder: string) => Promise<void>): Promise<void> {
    const folder = this.folderOf(id)
    try {
      await work(folder)
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause)
      throw new Fault('STORAGE', `cannot make ${folder}: ${reason}`, { folder }, { cause })
    }
  }

  #record(id: string): HandlerRecord | undefined {
    try {
      const value: unknown = JSON.parse(readFileSync(join(this.folderOf(id), RECORD_FILE), 'utf8'))
      return recordValidator.Check(value) && value.id === id ? value : undefined
    } catch {
      // Cut off by a crash before it was whole: nothing was started in there.
      return undefined
    }
  }
}
