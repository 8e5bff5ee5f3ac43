import assert from 'node:assert/strict'
import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { LogBook, type LogBookOptions } from '#agent/command/index.ts'
import { LIMITS } from '#shared/limits.ts'
import type { LogLine } from '#shared/schemas/health.ts'
import { tempFolder } from '#test/temp.ts'

const log = { debug() {}, info() {}, warn() {}, error() {} }

function line(text: string, fn = 'echo'): LogLine {
  return { atMs: 1, fn, release: 'r1-00000000', handler: 'abc', level: 'info', text }
}

const open = (folder: string, options: Partial<LogBookOptions> = {}) =>
  LogBook.open({ folder, log, ...options })

const texts = (lines: readonly LogLine[]) => lines.map(({ text }) => text)

describe('the log book', () => {
  it('keeps more in files than in memory, and gives the newest lines in order', async () => {
    await using folder = await tempFolder()
    await using book = await open(folder.path, { ringBytesMax: 1_000 })
    for (let number = 0; number < 200; number += 1) book.add(line(`line ${number}`))
    assert.deepEqual(texts((await book.tail('echo', 2, 10_000)).lines), ['line 198', 'line 199'])
    const all = await book.tail('echo', 1_000, 1_000_000)
    assert.deepEqual(
      texts(all.lines),
      Array.from({ length: 200 }, (_, number) => `line ${number}`),
    )
    assert.equal(all.dropped, 0)
    assert.deepEqual((await book.tail('nobody', 10, 1_000)).lines, [])
    assert.deepEqual((await book.tail('echo', 0, 1_000)).lines, [])
  })

  it('never holds more than two files of the bound per function', async () => {
    await using folder = await tempFolder()
    await using book = await open(folder.path, { ringBytesMax: 1_000, fileBytesMax: 10_000 })
    for (let round = 0; round < 20; round += 1) {
      for (let number = 0; number < 30; number += 1)
        book.add(line(`${round} ${number} ${'x'.repeat(50)}`))
      await book.flush()
    }
    const names = await readdir(folder.path)
    assert.equal(names.length, 2)
    for (const name of names) assert.ok((await stat(folder.join(name))).size <= 10_000, name)
    const { lines } = await book.tail('echo', 10_000, 1_000_000)
    assert.equal(lines.at(-1)?.text.slice(0, 5), '19 29')
    assert.ok(lines.length > 50)
  })

  it('counts what does not fit into the answer, and cuts lines that are too long', async () => {
    await using folder = await tempFolder()
    await using book = await open(folder.path, { ringBytesMax: 1_000_000 })
    for (let number = 0; number < 10; number += 1) book.add(line('x'.repeat(1_000)))
    const { lines, dropped } = await book.tail('echo', 10, 5_000)
    assert.equal(lines.length + dropped, 10)
    assert.equal(lines.length, 4)
    book.add(line('y'.repeat(100_000)))
    const [last] = (await book.tail('echo', 1, 100_000)).lines
    assert.equal(last?.text.length, LIMITS.logLineBytesMax)
  })

  it('drops and counts when the disk cannot keep up, with bounded memory', async () => {
    await using folder = await tempFolder()
    await using book = await open(folder.path)
    const text = 'z'.repeat(15_000)
    for (let number = 0; number < 1_000; number += 1) book.add(line(text))
    const { dropped } = await book.tail('echo', 1, 100_000)
    assert.ok(dropped > 500 && dropped < 1_000, `${dropped} dropped`)
  })

  it('goes on when a file has been taken away, and the others meanwhile', async () => {
    await using folder = await tempFolder()
    await using book = await open(folder.path, { ringBytesMax: 100, fileBytesMax: 1_000 })
    book.add(line('x'.repeat(800), 'gone'))
    await book.flush()
    for (const name of await readdir(folder.path)) await rm(folder.join(name))
    for (let round = 0; round < 3; round += 1) {
      for (const fn of ['gone', 'other']) book.add(line(`${round} ${'y'.repeat(300)}`, fn))
      await book.flush()
    }
    for (const fn of ['gone', 'other']) {
      const { lines } = await book.tail(fn, 10, 10_000)
      assert.deepEqual(
        lines.map(({ text }) => text.slice(0, 1)),
        ['0', '1', '2'],
        fn,
      )
    }
  })

  it('reads what an earlier agent left, passing over a line that a power cut has torn', async () => {
    await using folder = await tempFolder()
    {
      await using book = await open(folder.path)
      book.add(line('before', 'site/thermo'))
    }
    const [name] = await readdir(folder.path)
    assert.ok(name !== undefined)
    await writeFile(folder.join(name), `${await readFile(folder.join(name), 'utf8')}{"atMs":1,"fn`)
    await using book = await open(folder.path)
    book.add(line('after', 'site/thermo'))
    const { lines } = await book.tail('site/thermo', 10, 10_000)
    assert.deepEqual(texts(lines), ['before', 'after'])
  })

  it('forgets functions that are gone, and tells names apart that look alike in a folder', async () => {
    await using folder = await tempFolder()
    await using book = await open(folder.path)
    for (const fn of ['a/b', 'a~b', 'c']) book.add(line(fn, fn))
    await book.flush()
    assert.equal((await readdir(folder.path)).length, 3)
    await book.retain(['a/b'])
    assert.equal((await readdir(folder.path)).length, 1)
    assert.deepEqual(texts((await book.tail('a/b', 9, 1_000)).lines), ['a/b'])
    assert.deepEqual((await book.tail('c', 9, 1_000)).lines, [])
  })
})
