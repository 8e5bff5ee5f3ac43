import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import path from 'node:path'
import { PassThrough, type Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { pack, type Pack } from 'tar-stream'
import type { TreeEntry } from './tree.ts'
import { zstd } from './zstd.ts'

export interface PackedBundle {
  readonly digest: string
  readonly bytes: number
}

export interface TarOptions {
  /** In front of each name, e.g. `build/`. */
  readonly prefix?: string
  /** Owner of every entry. Default 0. */
  readonly id?: number
  /** File that is made executable whatever its mode. */
  readonly executable?: string | undefined
}

const EPOCH = new Date(0)

/**
 * A tree as a tar stream. The same tree gives the same bytes: order as given, no times, no names of users, modes only 644
 * and 755.
 */
export function packTar(
  root: string,
  tree: readonly TreeEntry[],
  options: TarOptions,
  signal: AbortSignal,
): Readable {
  const tar = pack()
  const out = new PassThrough()
  // Errors of either end up in `out`, which is what the caller reads.
  void Promise.allSettled([pipeline(tar, out, { signal }), fill(tar, root, tree, options)])
  return out
}

async function fill(
  tar: Pack,
  root: string,
  tree: readonly TreeEntry[],
  { prefix = '', id = 0, executable }: TarOptions,
): Promise<void> {
  try {
    for (const entry of tree) {
      const common = { name: prefix + entry.path, mtime: EPOCH, uid: id, gid: id }
      if (entry.kind === 'folder') tar.entry({ ...common, type: 'directory', mode: 0o755 })
      else if (entry.kind === 'link') {
        tar.entry({ ...common, type: 'symlink', linkname: entry.target, mode: 0o777 })
      } else {
        const mode = entry.executable || entry.path === executable ? 0o755 : 0o644
        const content = createReadStream(path.join(root, entry.path))
        await pipeline(content, tar.entry({ ...common, type: 'file', size: entry.bytes, mode }))
      }
    }
    tar.finalize()
  } catch (error) {
    tar.destroy(error instanceof Error ? error : new Error(String(error)))
  }
}

/** Packs a tree into a bundle file (tar, zstd) and says its digest. */
export async function packBundle(
  root: string,
  tree: readonly TreeEntry[],
  file: string,
  options: TarOptions,
  signal: AbortSignal,
): Promise<PackedBundle> {
  const hash = createHash('sha256')
  let bytes = 0
  await pipeline(
    packTar(root, tree, options, signal),
    zstd,
    async function* measure(chunks: AsyncIterable<Buffer>) {
      for await (const chunk of chunks) {
        hash.update(chunk)
        bytes += chunk.length
        yield chunk
      }
    },
    createWriteStream(file, { mode: 0o644, flush: true }),
    { signal },
  )
  return { digest: `sha256:${hash.digest('hex')}`, bytes }
}
