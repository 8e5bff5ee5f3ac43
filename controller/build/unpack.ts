import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { Readable, type Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import { extract, type Header } from 'tar-stream'
import { openPromise, type Entry as ZipEntry, type ZipFile } from 'yauzl'
import { Fault } from '#shared/fault.ts'
import type { ArchiveType } from './model.ts'
import { checkSize } from './tree.ts'
import { TreeWriter } from './tree-writer.ts'

export interface UnpackOptions {
  /** Taken off the front of each name; entries without it are left out. */
  readonly prefix?: string
  readonly skip?: (name: string) => boolean
}

/**
 * What a file is, by its first bytes. Anything that is neither zip nor gzip is taken for a tar, whose own reader says when
 * it is none.
 */
export async function sniffArchive(file: string): Promise<ArchiveType> {
  await using handle = await open(file)
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(4), 0, 4, 0)
  if (bytesRead === 0) throw new Fault('BUNDLE_INVALID', 'the upload is empty')
  if (buffer[0] === 0x50 && buffer[1] === 0x4b) return 'zip'
  return buffer[0] === 0x1f && buffer[1] === 0x8b ? 'tar.gz' : 'tar'
}

/** Unpacks an archive file into an empty folder. @throws Fault `BUNDLE_INVALID`, naming the entry */
export async function unpackFile(
  file: string,
  type: ArchiveType,
  into: string,
  options: UnpackOptions,
  signal: AbortSignal,
): Promise<void> {
  const writer = new TreeWriter(into)
  if (type === 'zip') return unpackZip(file, writer, options, signal)
  const gunzip = type === 'tar.gz' ? [createGunzip()] : []
  await unpackTar(createReadStream(file), gunzip, writer, options, signal)
}

/** Unpacks a tar as it comes. @throws Fault `BUNDLE_INVALID`, naming the entry */
export async function unpackTar(
  source: Readable,
  through: readonly Transform[],
  writer: TreeWriter,
  options: UnpackOptions,
  signal: AbortSignal,
): Promise<void> {
  const extractor = extract()
  const feeding = pipeline([source, ...through, extractor], { signal }).catch((error: unknown) => {
    extractor.destroy(error instanceof Error ? error : new Error(String(error)))
  })
  try {
    for await (const entry of extractor) {
      const name = pickName(entry.header.name, options)
      if (name !== undefined) await writeTarEntry(name, entry, writer, options, signal)
      entry.resume()
    }
    await feeding
  } catch (error) {
    throw asInvalid(error, 'tar', signal)
  } finally {
    source.destroy()
    extractor.destroy()
  }
}

async function writeTarEntry(
  name: string,
  entry: { readonly header: Header },
  writer: TreeWriter,
  { prefix = '' }: UnpackOptions,
  signal: AbortSignal,
): Promise<void> {
  const { type, mode, linkname } = entry.header
  switch (type) {
    case 'directory':
      return writer.folder(name)
    case 'file':
    case 'contiguous-file':
      return writer.file(name, (mode & 0o111) !== 0, contentOf(entry), signal)
    case 'symlink':
      return writer.link(name, linkname)
    case 'link':
      return writer.copy(name, pickName(linkname, { prefix }) ?? linkname)
    case 'character-device':
    case 'block-device':
    case 'fifo':
  }
  throw new Fault(
    'BUNDLE_INVALID',
    `entry "${name}" is a ${describe(type)}: only files, folders and links are taken`,
    { entry: name },
  )
}

/** Entries are streams of streamx, whose types do not come with tar-stream. */
function contentOf(entry: object): Readable {
  if (isChunks(entry)) return Readable.from(entry, { objectMode: false })
  throw new TypeError('an entry of a tar cannot be read')
}

function isChunks(value: object): value is AsyncIterable<Buffer> {
  return Symbol.asyncIterator in value
}

/** A type that tar-stream does not know (a sparse file, say) comes as null, whatever its types say. */
function describe(type: string | null): string {
  return type ?? 'kind of entry that is not known'
}

function pickName(name: string, { prefix = '', skip }: UnpackOptions): string | undefined {
  if (!name.startsWith(prefix)) return undefined
  const rest = name.slice(prefix.length)
  return skip?.(rest) === true ? undefined : rest
}

async function unpackZip(
  file: string,
  writer: TreeWriter,
  options: UnpackOptions,
  signal: AbortSignal,
): Promise<void> {
  let zip: ZipFile | undefined
  try {
    zip = await openPromise(file, { lazyEntries: true, autoClose: false })
    checkSize(zip.entryCount, 0)
    for await (const entry of zip.eachEntry()) {
      signal.throwIfAborted()
      const name = pickName(entry.fileName, options)
      if (name !== undefined) await writeZipEntry(name, entry, zip, writer, signal)
    }
  } catch (error) {
    throw asInvalid(error, 'zip', signal)
  } finally {
    zip?.close()
  }
}

const LINK_TARGET_BYTES_MAX = 4096

async function writeZipEntry(
  name: string,
  entry: ZipEntry,
  zip: ZipFile,
  writer: TreeWriter,
  signal: AbortSignal,
): Promise<void> {
  // Made on Unix (3) or macOS (19): the upper half of the attributes is the file's mode.
  const madeBy = entry.versionMadeBy >>> 8
  const mode = madeBy === 3 || madeBy === 19 ? entry.externalFileAttributes >>> 16 : 0
  const format = mode & 0o170000
  if (name.endsWith('/') || format === 0o040000) return writer.folder(name)
  if (format !== 0 && format !== 0o100000 && format !== 0o120000) {
    throw new Fault('BUNDLE_INVALID', `entry "${name}" is a device, pipe or socket`, {
      entry: name,
    })
  }
  if (!entry.canDecodeFileData()) {
    throw new Fault(
      'BUNDLE_INVALID',
      `entry "${name}" is encrypted or packed by an unusual method: use plain deflate`,
      { entry: name },
    )
  }
  const content = await zip.openReadStreamPromise(entry)
  if (format === 0o120000) return writer.link(name, await readText(content, name))
  await writer.file(name, (mode & 0o111) !== 0, content, signal)
}

async function readText(content: Readable, name: string): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of Readable.from(content)) {
    const part = Buffer.from(chunk)
    bytes += part.length
    if (bytes > LINK_TARGET_BYTES_MAX) {
      throw new Fault('BUNDLE_INVALID', `link "${name}" has an endless target`, { entry: name })
    }
    chunks.push(part)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** A reader's own complaint about the archive is the sender's fault, ours (disk full) is not. */
function asInvalid(error: unknown, type: 'tar' | 'zip', signal: AbortSignal): unknown {
  if (error instanceof Fault || signal.aborted) return error
  if (error instanceof Error && 'syscall' in error) return error
  const message = error instanceof Error ? error.message : String(error)
  const guess = type === 'tar' ? ' (what begins as neither zip nor gzip is read as a tar)' : ''
  return new Fault(
    'BUNDLE_INVALID',
    `cannot read the ${type}: ${message}${guess}`,
    {},
    { cause: error },
  )
}
