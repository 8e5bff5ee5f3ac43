import { Fault } from './fault.ts'

/** The part of `node:fs/promises` that durable files need; a simulation of power cuts passes its own. */
export interface FileOps {
  open(path: string, flags: string, mode?: number): Promise<OpenFile>
  readFile(path: string): Promise<Buffer>
  rename(from: string, to: string): Promise<void>
  rm(path: string, options: { readonly force: boolean }): Promise<void>
}

interface OpenFile {
  writeFile(data: Uint8Array | string): Promise<void>
  sync(): Promise<void>
  close(): Promise<void>
}

export interface DurableFileOptions {
  readonly folder: string
  readonly name: string
  readonly fs: FileOps
  /** Mode of new files; default 0600. */
  readonly mode?: number
}

/**
 * A small file that survives a power cut at any moment, with the one before it as a spare.
 *
 * ```
 * write name.new, fsync -> [rename name -> name.old] -> rename name.new -> name -> fsync folder
 * ```
 *
 * At every point `name` or `name.old` is whole. When `write` has resolved, the new content is on the disk.
 * One writer at a time; it writes only what its owner has verified.
 */
export class DurableFile {
  readonly path: string
  readonly #options: DurableFileOptions
  /** True when `name` is known to be good: only then may it become the spare. */
  #currentIsGood = false

  constructor(options: DurableFileOptions) {
    this.#options = options
    this.path = `${options.folder}/${options.name}`
  }

  /**
   * The first of `name`, `name.old` that `parse` takes; `parse` throws for one that it does not.
   *
   * @returns the value and why candidates before it were passed over; files that do not exist are no problem
   */
  async read<T>(
    parse: (bytes: Buffer) => T | Promise<T>,
  ): Promise<{ readonly value: T | undefined; readonly problems: readonly Error[] }> {
    const problems: Error[] = []
    this.#currentIsGood = false
    for (const path of [this.path, `${this.path}.old`]) {
      try {
        const value = await parse(await this.#options.fs.readFile(path))
        this.#currentIsGood = path === this.path
        return { value, problems }
      } catch (error) {
        if (!isAbsent(error)) problems.push(new Error(`${path}: ${messageOf(error)}`))
      }
    }
    return { value: undefined, problems }
  }

  /**
   * Replaces the content and returns when it is on the disk.
   *
   * @throws Fault `STORAGE`; the old content is then still there
   */
  async write(data: Uint8Array | string): Promise<void> {
    const { fs, folder, mode = 0o600 } = this.#options
    const fresh = `${this.path}.new`
    try {
      const file = await fs.open(fresh, 'w', mode)
      try {
        await file.writeFile(data)
        await file.sync()
      } finally {
        await file.close()
      }
      if (this.#currentIsGood) {
        this.#currentIsGood = false
        await fs.rename(this.path, `${this.path}.old`)
      }
      await fs.rename(fresh, this.path)
      this.#currentIsGood = true
      await syncFolder(fs, folder)
    } catch (error) {
      throw storageFault(error, `cannot write ${this.path}`)
    }
  }
}

/** Makes the names in a folder as durable as the files' content. */
export async function syncFolder(fs: FileOps, folder: string): Promise<void> {
  const handle = await fs.open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** A failed file operation as the fault that says so. */
export function storageFault(error: unknown, what: string): Fault {
  const hint = isFull(error) ? '; free space on this disk' : ''
  return new Fault('STORAGE', `${what}: ${messageOf(error)}${hint}`, {}, { cause: error })
}

function isFull(error: unknown): boolean {
  return ['ENOSPC', 'EDQUOT'].includes(codeOf(error))
}

function isAbsent(error: unknown): boolean {
  return codeOf(error) === 'ENOENT'
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
