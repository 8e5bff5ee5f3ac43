import { createWriteStream } from 'node:fs'
import { chmod, copyFile, mkdir, rm, symlink } from 'node:fs/promises'
import path from 'node:path'
import { Transform, type Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { Fault } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import { entryPath, linkProblem } from './entry-path.ts'
import { checkSize } from './tree.ts'

/**
 * Writes the entries of an untrusted archive below one folder, which must be empty at first.
 *
 * It is the only writer there, so what it has written itself tells it all it needs to know: nothing is ever written
 * through a link, and no entry lies outside. Parents are made as needed; a later entry replaces an earlier one.
 */
export class TreeWriter {
  readonly #root: string
  readonly #kinds = new Map<string, 'folder' | 'file' | 'link'>()
  readonly #fileBytes = new Map<string, number>()
  #bytes = 0

  constructor(root: string) {
    this.#root = root
  }

  get entries(): number {
    return this.#kinds.size
  }

  async folder(name: string): Promise<void> {
    const relative = clean(name)
    if (relative !== '') await this.#ensureFolder(relative)
  }

  async file(
    name: string,
    executable: boolean,
    content: Readable,
    signal: AbortSignal,
  ): Promise<void> {
    const relative = await this.#place(name)
    this.#kinds.set(relative, 'file')
    const mode = executable ? 0o755 : 0o644
    const out = createWriteStream(this.#full(relative), { flags: 'wx', mode })
    const bytesBefore = this.#bytes
    await pipeline(content, this.#meter(), out, { signal })
    this.#fileBytes.set(relative, this.#bytes - bytesBefore)
    // The mode above went through the process's umask.
    await chmod(this.#full(relative), mode)
  }

  async link(name: string, target: string): Promise<void> {
    const relative = await this.#place(name)
    const problem = linkProblem(relative, target)
    if (problem !== undefined) throw new Fault('BUNDLE_INVALID', problem, { entry: relative })
    await symlink(target, this.#full(relative))
    this.#kinds.set(relative, 'link')
  }

  /** A hard link in a tar: becomes a file of its own with the same content. */
  async copy(name: string, from: string): Promise<void> {
    const source = clean(from)
    if (this.#kinds.get(source) !== 'file') {
      throw new Fault(
        'BUNDLE_INVALID',
        `entry "${name}" is a hard link to "${from}", which is not in the archive`,
        { entry: name },
      )
    }
    if (clean(name) === source) return
    const relative = await this.#place(name)
    const bytes = this.#fileBytes.get(source) ?? 0
    this.#bytes += bytes
    checkSize(this.#kinds.size + 1, this.#bytes)
    this.#fileBytes.set(relative, bytes)
    await copyFile(this.#full(source), this.#full(relative))
    this.#kinds.set(relative, 'file')
  }

  #full(relative: string): string {
    return path.join(this.#root, relative)
  }

  /** Makes room for a file or link: its parents exist, and nothing is in its place. */
  async #place(name: string): Promise<string> {
    const relative = clean(name)
    if (relative === '' || this.#kinds.get(relative) === 'folder') {
      throw new Fault('BUNDLE_INVALID', `entry "${name}" is a folder and a file at once`, {
        entry: name,
      })
    }
    const parent = path.posix.dirname(relative)
    if (parent !== '.') await this.#ensureFolder(parent)
    if (this.#kinds.delete(relative)) await rm(this.#full(relative), { force: true })
    checkSize(this.#kinds.size + 1, this.#bytes)
    return relative
  }

  async #ensureFolder(relative: string): Promise<void> {
    const segments = relative.split('/')
    for (let depth = 1; depth <= segments.length; depth += 1) {
      const step = segments.slice(0, depth).join('/')
      const kind = this.#kinds.get(step)
      if (kind === 'folder') continue
      if (kind !== undefined) {
        throw new Fault('BUNDLE_INVALID', `entry "${relative}" lies behind the ${kind} "${step}"`, {
          entry: relative,
        })
      }
      checkSize(this.#kinds.size + 1, this.#bytes)
      await mkdir(this.#full(step), { mode: 0o755 })
      this.#kinds.set(step, 'folder')
    }
  }

  #meter(): Transform {
    return new Transform({
      transform: (chunk: Buffer, _encoding, done) => {
        this.#bytes += chunk.length
        if (this.#bytes <= LIMITS.bundleBytesMax) return done(null, chunk)
        try {
          checkSize(0, this.#bytes)
        } catch (error) {
          done(error instanceof Error ? error : new Error(String(error)))
        }
      },
    })
  }
}

function clean(name: string): string {
  const result = entryPath(name)
  if ('problem' in result) throw new Fault('BUNDLE_INVALID', result.problem, { entry: name })
  return result.path
}
