import { readFile, stat } from 'node:fs/promises'
import path from 'node:path'
import type { Readable } from 'node:stream'
import { packTar, readTree } from '#controller/build/index.ts'
import { Fault } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import { ignoreFilter } from './ignore.ts'
import { bytesText } from './table.ts'

export interface PackedFolder {
  readonly files: number
  /** Of the files, unpacked. */
  readonly bytes: number
  readonly tar: Readable
}

/**
 * Packs a function's folder for the upload, without what `.shoalignore` and common sense leave out.
 *
 * @throws Fault `BUNDLE_INVALID`: no folder, nothing in it, or more than an upload may hold
 */
export async function packFolder(folder: string, signal: AbortSignal): Promise<PackedFolder> {
  const stats = await stat(folder).catch(() => undefined)
  if (stats === undefined) throw new Fault('BUNDLE_INVALID', `there is no folder ${folder}`)
  if (!stats.isDirectory()) {
    throw new Fault(
      'BUNDLE_INVALID',
      `${folder} is a file: name the folder that holds the function`,
    )
  }
  const rules = await readFile(path.join(folder, '.shoalignore'), 'utf8').catch(() => '')
  const tree = await readTree(folder, ignoreFilter(rules))
  const files = tree.filter((entry) => entry.kind !== 'folder')
  if (files.length === 0) {
    throw new Fault('BUNDLE_INVALID', `${folder} holds no files (or .shoalignore leaves all out)`)
  }
  let bytes = 0
  // A tar has a header of 512 bytes for each entry and fills each file up to a multiple of that.
  let packed = 1024
  for (const entry of tree) {
    const size = entry.kind === 'file' ? entry.bytes : 0
    bytes += size
    packed += 512 + Math.ceil(size / 512) * 512
  }
  if (packed > LIMITS.sourceBytesMax) {
    throw new Fault(
      'BUNDLE_INVALID',
      `${folder} is ${bytesText(packed)} packed, more than ${bytesText(LIMITS.sourceBytesMax)}: name what to leave out in .shoalignore`,
    )
  }
  return { files: files.length, bytes, tar: packTar(folder, tree, {}, signal) }
}
