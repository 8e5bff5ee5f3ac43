import assert from 'node:assert/strict'
import path from 'node:path'
import { it } from 'node:test'
import * as fc from 'fast-check'
import { entryPath, linkProblem } from '../../controller/build/entry-path.ts'

const GOOD = [
  ['a', 'a'],
  ['a/b', 'a/b'],
  ['./a//b/', 'a/b'],
  ['./', ''],
  ['a/./b', 'a/b'],
  ['..a/b..', '..a/b..'],
  ['häß/ü', 'häß/ü'],
] as const

for (const [name, clean] of GOOD) {
  it(`entry ${JSON.stringify(name)} is taken as ${JSON.stringify(clean)}`, () => {
    assert.deepEqual(entryPath(name), { path: clean })
  })
}

const BAD = [
  ['/etc/passwd', /absolute/],
  ['../x', /outside/],
  ['a/../../x', /outside/],
  ['a/..', /outside/],
  ['C:\\x', /absolute/],
  ['a\0b', /zero byte/],
  ['a'.repeat(256), /more than 255 bytes/],
  [Array.from({ length: 600 }, () => 'aa').join('/'), /more than 1024 bytes/],
] as const

for (const [name, says] of BAD) {
  it(`entry ${JSON.stringify(name.slice(0, 20))} is refused and named`, () => {
    const result = entryPath(name)
    assert.ok('problem' in result)
    assert.match(result.problem, says)
  })
}

it('whatever the name, what comes out stays inside', () => {
  const segment = fc.oneof(fc.constantFrom('..', '.', '', 'a', 'b'), fc.string())
  fc.assert(
    fc.property(fc.array(segment), (segments) => {
      const result = entryPath(segments.join('/'))
      if ('problem' in result) return
      const full = path.posix.join('/root', result.path)
      assert.ok(full === '/root' || full.startsWith('/root/'), full)
    }),
  )
})

const LINKS = [
  ['l', 'a', true],
  ['l', 'a/b/c', true],
  ['d/l', '../a', true],
  ['d/e/l', '../../a', true],
  ['d/e/l', '../../../a', false],
  ['l', '../a', false],
  ['l', '/etc/passwd', false],
  ['l', '', false],
  ['l', 'a/../b', false],
  ['d/l', './../a', true],
] as const

for (const [at, target, allowed] of LINKS) {
  it(`link ${at} -> ${JSON.stringify(target)} is ${allowed ? 'taken' : 'refused'}`, () => {
    assert.equal(linkProblem(at, target) === undefined, allowed)
  })
}
