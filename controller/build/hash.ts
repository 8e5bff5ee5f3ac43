import { createHash, type Hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { Writable } from 'node:stream'
import type { Arch, Runtime } from '#shared/schemas/names.ts'
import type { TreeEntry } from './tree.ts'

/** Rises when the same source would give another bundle. */
const RECIPE = 1

/** What decides, beside the files, what a build gives. */
export interface HashContext {
  readonly runtime: Runtime
  readonly entry: string
  /** Id of the builder image, the name of the host's tool, or `none` when nothing is installed. */
  readonly builder: string
  readonly arch: Arch | 'any'
}

/** `sha256:<hex>` over paths, modes and contents, sorted, and the context. */
export async function hashTree(
  root: string,
  tree: readonly TreeEntry[],
  context: HashContext,
  signal: AbortSignal,
): Promise<string> {
  const hash = createHash('sha256')
  field(hash, JSON.stringify([RECIPE, context.runtime, context.entry, context.builder]))
  field(hash, context.arch)
  for (const entry of tree) {
    field(hash, entry.kind)
    field(hash, entry.path)
    if (entry.kind === 'link') field(hash, entry.target)
    if (entry.kind === 'file') {
      field(hash, entry.executable ? 'x' : '-')
      hash.update(`${entry.bytes}:`)
      await feed(hash, path.join(root, entry.path), signal)
    }
  }
  return `sha256:${hash.digest('hex')}`
}

/** Each part carries its length, so that no two lists of parts look the same. */
function field(hash: Hash, text: string): void {
  hash.update(`${Buffer.byteLength(text)}:${text}`)
}

async function feed(hash: Hash, file: string, signal: AbortSignal): Promise<void> {
  const sink = new Writable({
    write(chunk: Buffer, _encoding, done) {
      hash.update(chunk)
      done()
    },
  })
  await pipeline(createReadStream(file), sink, { signal })
}
