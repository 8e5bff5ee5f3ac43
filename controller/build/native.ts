import { open } from 'node:fs/promises'
import path from 'node:path'
import type { Arch } from '#shared/schemas/names.ts'
import type { TreeEntry } from './tree.ts'

/** `e_machine` of the ELF header (System V gABI, chapter 4): EM_386, EM_ARM, EM_X86_64, EM_AARCH64. */
const MACHINES: ReadonlyMap<number, Arch> = new Map([
  [3, 'amd64'],
  [40, 'arm64'],
  [62, 'amd64'],
  [183, 'arm64'],
])
const ELF_MAGIC = 0x7f454c46
/** Up to and with `e_machine`. */
const HEADER_BYTES = 20
const LIBRARY = /\.(?:so(?:\.[\d.]+)?|node)$/

/**
 * Where a bundle runs by what its own programs and libraries were made for: that architecture; `any` when there are none, or
 * when there are some for each (the function chooses between them).
 *
 * @param entry - of a `binary` function: when it is a program itself, it alone decides
 */
export async function nativeArch(
  root: string,
  tree: readonly TreeEntry[],
  entry: string | undefined,
): Promise<Arch | 'any'> {
  const found = new Set<Arch>()
  for (const item of tree) {
    if (item.kind !== 'file' || item.bytes < HEADER_BYTES) continue
    const isEntry = item.path === entry
    if (!isEntry && !item.executable && !LIBRARY.test(item.path)) continue
    const arch = await elfArch(path.join(root, item.path))
    if (arch === undefined) continue
    if (isEntry) return arch
    found.add(arch)
  }
  const [only] = found
  return found.size === 1 && only !== undefined ? only : 'any'
}

/** Undefined for what is no ELF file, or for a machine that no node can be. */
async function elfArch(file: string): Promise<Arch | undefined> {
  const header = Buffer.alloc(HEADER_BYTES)
  await using handle = await open(file)
  await handle.read(header, 0, HEADER_BYTES, 0)
  if (header.readUInt32BE(0) !== ELF_MAGIC) return undefined
  const bigEndian = header.readUInt8(5) === 2
  return MACHINES.get(bigEndian ? header.readUInt16BE(18) : header.readUInt16LE(18))
}
