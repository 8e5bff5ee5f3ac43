import assert from 'node:assert/strict'
import { createReadStream } from 'node:fs'
import { chmod, link, mkdir, open, realpath, symlink, utimes } from 'node:fs/promises'
import { dirname, join, normalize, sep } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { createZstdDecompress } from 'node:zlib'
import { extract, type Extract, type Header } from 'tar-stream'
import { Fault } from '#shared/fault.ts'
import { syncFolder } from '../durable.ts'

export interface UnpackLimits {
  /** Of all files together, unpacked. */
  readonly bytesMax: number
  /** Files, folders and links. */
  readonly filesMax: number
}

const PATH_BYTES_MAX = 1024
const SYNC_AT_ONCE = 16
/** What tar adds to a file at most, as our builder writes it: a header, a long name and padding. */
const ENTRY_BYTES = 4 * 1024

/**
 * Unpacks a bundle (tar, zstd) into an empty folder and makes it durable.
 *
 * Modes are normalised: folders 755, files 644, or 755 with any execute bit; owners are ignored; modification times are kept
 * (Python compares them with its compiled files). Nothing can be written or linked outside the folder, whatever the archive
 * says: parents must be real folders of the same archive, and links must end inside.
 *
 * @throws Fault `BUNDLE_INVALID`
 */
export async function unpackBundle(
  file: string,
  folder: string,
  limits: UnpackLimits,
  signal: AbortSignal,
): Promise<void> {
  const unpacking = new Unpacking(folder, limits)
  const entries = extract()
  const bounded = boundedBytes(limits)
  const archive = createReadStream(file)
  const reading = pipeline(archive, createZstdDecompress(), bounded, entries, { signal })
  // It may fail while a file is being written, long before it is waited for: as an unhandled rejection that ended the agent.
  const ended = reading.catch(() => {})
  try {
    for await (const entry of entries) await unpacking.add(entry.header, entry)
    await reading
  } catch (error) {
    await ended
    throw invalidArchive(error, signal)
  }
  await unpacking.finish()
}

/** The archive itself is bounded too, whatever it says its entries are: a few compressed bytes can become gigabytes. */
function boundedBytes({ bytesMax, filesMax }: UnpackLimits) {
  const archiveBytesMax = bytesMax + filesMax * ENTRY_BYTES
  return async function* bounded(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    let bytes = 0
    for await (const chunk of source) {
      bytes += chunk.length
      if (bytes > archiveBytesMax) throw invalid(`more than ${archiveBytesMax} bytes of archive`)
      yield chunk
    }
  }
}

type Kind = 'file' | 'folder' | 'link'

/** One entry's bytes; must be read or resumed before the next entry comes. */
type Content = Extract extends AsyncIterable<infer Source> ? Source : never

class Unpacking {
  readonly #root: string
  readonly #limits: UnpackLimits
  /** What is where, by normalised path: the archive's own view, which the file system cannot be tricked out of. */
  readonly #made = new Map<string, Kind>([['.', 'folder']])
  readonly #times: { readonly path: string; readonly mtime: Date }[] = []
  #bytes = 0

  constructor(root: string, limits: UnpackLimits) {
    this.#root = root
    this.#limits = limits
  }

  async add(header: Header, content: Content): Promise<void> {
    const path = safePath(header.name)
    if (path === '.') {
      content.resume()
      return
    }
    await this.#parents(path)
    switch (header.type) {
      case 'file':
      case 'contiguous-file':
        await this.#file(path, header, content)
        break
      case 'directory':
        await this.#folder(path)
        break
      case 'symlink':
        await this.#symlink(path, header.linkname)
        break
      case 'link':
        await this.#hardLink(path, header.linkname)
        break
      case 'block-device':
      case 'character-device':
      case 'fifo':
        throw invalid(`${header.name} is a ${header.type}`)
      default:
        // The archive's own number, when it is none of the known ones.
        throw invalid(`${header.name} is of unknown kind`)
    }
    content.resume()
  }

  /** Checks links, sets times and makes all of it durable. */
  async finish(): Promise<void> {
    const root = await realpath(this.#root)
    for (const [path, kind] of this.#made) if (kind === 'link') await this.#checkLink(root, path)
    for (const { path, mtime } of this.#times) await utimes(path, mtime, mtime)
    const queue = this.#made.entries()
    const sync = async (): Promise<void> => {
      for (const [path, kind] of queue)
        if (kind !== 'link') await syncFolder(join(this.#root, path))
    }
    // Together, because the file system writes many in one go.
    await Promise.all(Array.from({ length: SYNC_AT_ONCE }, sync))
  }

  async #file(path: string, header: Header, content: Content): Promise<void> {
    this.#claim(path, 'file')
    this.#bytes += header.size
    if (this.#bytes > this.#limits.bytesMax) {
      throw invalid(`more than ${this.#limits.bytesMax} bytes unpacked`)
    }
    const target = join(this.#root, path)
    const executable = (header.mode & 0o111) !== 0
    const file = await open(target, 'wx', 0o644)
    try {
      let bytes = 0
      for await (const chunk of content) {
        assert(chunk instanceof Uint8Array)
        // Not `write`: that one may write less than it is given, as it does where the disk gets full.
        await file.writeFile(chunk)
        bytes += chunk.length
      }
      if (bytes !== header.size) throw invalid(`${path} has ${bytes} of its ${header.size} bytes`)
      // Not by open(): that one is subject to the umask.
      await file.chmod(executable ? 0o755 : 0o644)
    } finally {
      await file.close()
    }
    this.#times.push({ path: target, mtime: header.mtime })
  }

  async #folder(path: string): Promise<void> {
    if (this.#made.get(path) === 'folder') return
    this.#claim(path, 'folder')
    const target = join(this.#root, path)
    await mkdir(target)
    await chmod(target, 0o755)
  }

  async #symlink(path: string, to: string): Promise<void> {
    const target = normalize(join(dirname(path), to))
    if (to === '' || to.startsWith('/') || isOutside(target)) {
      throw invalid(`link ${path} leaves the bundle: ${to}`)
    }
    this.#claim(path, 'link')
    await symlink(to, join(this.#root, path))
  }

  async #hardLink(path: string, to: string): Promise<void> {
    const target = safePath(to)
    if (this.#made.get(target) !== 'file') throw invalid(`link ${path} to ${to}, which is no file`)
    this.#claim(path, 'file')
    await link(join(this.#root, target), join(this.#root, path))
  }

  /** A link through other links may leave although its text does not. One that leads nowhere leads nowhere inside as well. */
  async #checkLink(root: string, path: string): Promise<void> {
    let real: string
    try {
      real = await realpath(join(root, path))
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return
      throw invalid(`link ${path} cannot be followed`)
    }
    if (real !== root && !real.startsWith(root + sep))
      throw invalid(`link ${path} leaves the bundle`)
  }

  async #parents(path: string): Promise<void> {
    const parent = dirname(path)
    const kind = this.#made.get(parent)
    if (kind === 'folder') return
    if (kind !== undefined) throw invalid(`${path} lies below ${parent}, which is a ${kind}`)
    await this.#parents(parent)
    await this.#folder(parent)
  }

  #claim(path: string, kind: Kind): void {
    if (this.#made.has(path)) throw invalid(`${path} comes twice`)
    if (this.#made.size > this.#limits.filesMax) {
      throw invalid(`more than ${this.#limits.filesMax} files`)
    }
    this.#made.set(path, kind)
  }
}

function safePath(name: string): string {
  const path = normalize(name).replace(/\/+$/, '')
  if (name === '' || name.includes('\0') || name.startsWith('/') || isOutside(path)) {
    throw invalid(`path ${JSON.stringify(name)} leaves the bundle`)
  }
  if (Buffer.byteLength(path) > PATH_BYTES_MAX)
    throw invalid(`path of over ${PATH_BYTES_MAX} bytes`)
  return path
}

function isOutside(path: string): boolean {
  return path === '..' || path.startsWith('../')
}

function invalid(why: string): Fault {
  return new Fault('BUNDLE_INVALID', `the bundle is not usable: ${why}`)
}

/** Errors of tar-stream and zlib are about the archive; those with a system call's name are about this disk. */
function invalidArchive(error: unknown, signal: AbortSignal): unknown {
  if (signal.aborted) return signal.reason
  if (Fault.is(error) || (error instanceof Error && 'syscall' in error)) return error
  const reason = error instanceof Error ? error.message : String(error)
  return new Fault('BUNDLE_INVALID', `the bundle is not a tar.zst: ${reason}`, {}, { cause: error })
}
