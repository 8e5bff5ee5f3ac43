import assert from 'node:assert/strict'
import { it } from 'node:test'
import {
  duration,
  durationOrNever,
  envPairs,
  functionName,
  headerPairs,
  integer,
  isolation,
  memory,
  network,
  positive,
  runtime,
} from '../../controller/cli/values.ts'

const WRONG = { code: 'commander.invalidArgument' }

interface Row {
  readonly name: string
  readonly read: (text: string) => unknown
  readonly good: readonly (readonly [string, unknown])[]
  readonly bad: readonly string[]
}

const ROWS: Row[] = [
  {
    name: 'integer',
    read: integer(1, 64),
    good: [
      ['1', 1],
      ['64', 64],
    ],
    bad: ['0', '65', '1.5', 'x', ''],
  },
  {
    name: 'positive',
    read: positive,
    good: [
      ['0.5', 0.5],
      ['2', 2],
    ],
    bad: ['0', '-1', 'x', '', 'Infinity'],
  },
  {
    name: 'duration',
    read: duration,
    good: [
      ['500ms', 500],
      ['30', 30_000],
      ['30s', 30_000],
      ['5m', 300_000],
      ['1.5h', 5_400_000],
      ['7d', 604_800_000],
    ],
    bad: ['', '0', 's', '5 parsecs', '-1s'],
  },
  {
    name: 'duration or never',
    read: durationOrNever,
    good: [
      ['never', 0],
      ['5m', 300_000],
    ],
    bad: ['', '0', 'ever'],
  },
  {
    name: 'isolation',
    read: isolation,
    good: [['fresh', 'fresh']],
    bad: ['', 'none'],
  },
  {
    name: 'memory',
    read: memory,
    good: [
      ['256', 256],
      ['256m', 256],
      ['256MiB', 256],
      ['1g', 1024],
      ['2 GiB', 2048],
    ],
    bad: ['', '0', '1.5g', '10k'],
  },
  { name: 'runtime', read: runtime, good: [['python3', 'python3']], bad: ['python', ''] },
  {
    name: 'network',
    read: network,
    good: [
      ['none', 'none'],
      ['outbound', 'outbound'],
    ],
    bad: ['host'],
  },
  {
    name: 'function name',
    read: functionName,
    good: [
      ['a', 'a'],
      ['site/thermo.v2', 'site/thermo.v2'],
    ],
    bad: ['', '..', 'a b', 'a//b', 'a/b/c/d/e'],
  },
]

for (const { name, read, good, bad } of ROWS) {
  it(`${name}: takes what it means and says what it wants`, () => {
    for (const [text, value] of good) assert.equal(read(text), value, text)
    for (const text of bad) assert.throws(() => read(text), WRONG, text)
  })
}

it('environment: NAME=value adds up, NAME alone is taken from here', () => {
  const read = envPairs({ HERE: 'from here' })
  assert.deepEqual(read('A=1=2', undefined), { A: '1=2' })
  assert.deepEqual(read('B=', { A: '1' }), { A: '1', B: '' })
  assert.deepEqual(read('HERE', undefined), { HERE: 'from here' })
  for (const text of ['=x', 'a-b=1', 'ABSENT', '1A=x']) {
    assert.throws(() => read(text, undefined), WRONG, text)
  }
})

it('headers: names in small letters, values trimmed', () => {
  assert.deepEqual(headerPairs('X-A: b: c ', { z: '1' }), { z: '1', 'x-a': 'b: c' })
  for (const text of ['no colon', ': x', 'a b: c']) {
    assert.throws(() => headerPairs(text, undefined), WRONG, text)
  }
})
