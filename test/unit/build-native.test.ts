import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, it } from 'node:test'
import { tempFolder } from '#test/temp.ts'
import { nativeArch } from '../../controller/build/native.ts'
import { readTree } from '../../controller/build/tree.ts'

const AMD64 = elf(62)
const ARM64 = elf(183)

/** The first 64 bytes of a program for a machine (System V gABI: e_ident, e_type, e_machine). */
function elf(machine: number, bigEndian = false): Buffer {
  const header = Buffer.alloc(64)
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, bigEndian ? 2 : 1, 1])
  if (bigEndian) header.writeUInt16BE(machine, 18)
  else header.writeUInt16LE(machine, 18)
  return header
}

interface Row {
  readonly name: string
  /** By path; `*` behind it: executable. */
  readonly files: Readonly<Record<string, Buffer | string>>
  readonly entry?: string
  readonly arch: 'amd64' | 'arm64' | 'any'
}

const ROWS: readonly Row[] = [
  { name: 'a script alone', files: { 'fn.sh*': '#!/bin/sh\nexec cat\n' }, arch: 'any' },
  { name: 'a program as the entry', files: { fn: ARM64 }, entry: 'fn', arch: 'arm64' },
  { name: 'a big-endian header', files: { fn: elf(183, true) }, entry: 'fn', arch: 'arm64' },
  { name: 'a 32-bit program', files: { 'fn*': elf(3) }, arch: 'amd64' },
  { name: 'a script with its program', files: { 'fn.sh*': 'x', 'bin/t*': AMD64 }, arch: 'amd64' },
  { name: 'a program for each', files: { 'bin/a*': AMD64, 'bin/b*': ARM64 }, arch: 'any' },
  {
    name: 'an entry decides alone',
    files: { fn: AMD64, 'firmware.bin*': ARM64 },
    entry: 'fn',
    arch: 'amd64',
  },
  { name: 'an add-on', files: { 'index.js': 'x', 'lib/a.node': ARM64 }, arch: 'arm64' },
  { name: 'a library with a version', files: { 'lib/libz.so.1.2': AMD64 }, arch: 'amd64' },
  { name: 'data that happens to be a program', files: { 'flash.img': ARM64 }, arch: 'any' },
  { name: 'a machine that no node is', files: { 'fn*': elf(243) }, arch: 'any' },
  { name: 'less than a header', files: { 'fn*': AMD64.subarray(0, 19) }, arch: 'any' },
]

describe('where a bundle runs, by the programs in it', () => {
  for (const { name, files, entry, arch } of ROWS) {
    it(`${name}: ${arch}`, async () => {
      await using folder = await tempFolder()
      for (const [path, content] of Object.entries(files)) {
        const file = join(folder.path, path.replace('*', ''))
        await mkdir(dirname(file), { recursive: true })
        await writeFile(file, content, { mode: path.endsWith('*') ? 0o755 : 0o644 })
      }
      assert.equal(await nativeArch(folder.path, await readTree(folder.path), entry), arch)
    })
  }
})
