import assert from 'node:assert/strict'
import { it } from 'node:test'
import * as fc from 'fast-check'
import type { NodeLogLine } from '#shared/schemas/api.ts'
import { decodeGoBase64, decodeGoJson } from '../../controller/compat/tinyfaas/go-json.ts'
import { goTime, logText } from '../../controller/compat/tinyfaas/log-text.ts'
import { parseUpload, uploadAnswer } from '../../controller/compat/tinyfaas/requests.ts'

const FIELDS = { name: 'string', threads: 'int', envs: 'strings' } as const
const ZERO = { name: '', threads: 0, envs: [] }

const JSON_ROWS: readonly { text: string; is: object | undefined; why: string }[] = [
  {
    text: '{"name":"a","threads":2,"envs":["A=1"]}',
    is: { name: 'a', threads: 2, envs: ['A=1'] },
    why: 'plain',
  },
  {
    text: '{"NAME":"a","Threads":1}',
    is: { ...ZERO, name: 'a', threads: 1 },
    why: 'names in any case',
  },
  { text: '{"name":"a","Name":"b"}', is: { ...ZERO, name: 'b' }, why: 'the last of equal names' },
  { text: '{"name":"a","zip":5,"x":{"y":[]}}', is: { ...ZERO, name: 'a' }, why: 'unknown fields' },
  { text: '{"name":null,"threads":null,"envs":null}', is: ZERO, why: 'null is no value' },
  {
    text: '{"envs":[null,"A=1"]}',
    is: { ...ZERO, envs: ['', 'A=1'] },
    why: 'null in a list is empty',
  },
  { text: 'null', is: ZERO, why: 'null as a whole' },
  { text: '{}', is: ZERO, why: 'nothing given' },
  {
    text: ' {"name":"a"} trailing',
    is: { ...ZERO, name: 'a' },
    why: 'only the first value is read',
  },
  {
    text: '{"name":"a"}{"name":"b"}',
    is: { ...ZERO, name: 'a' },
    why: 'a second value is not read',
  },
  {
    text: String.raw`{"name":"}\"{\\"} x`,
    is: { ...ZERO, name: '}"{\\' },
    why: 'braces in strings',
  },
  { text: '{"x":[{"y":"]"}],"name":"a"} ]', is: { ...ZERO, name: 'a' }, why: 'nested values' },
  { text: 'null{', is: ZERO, why: 'null, then anything' },
  { text: '', is: undefined, why: 'an empty body' },
  { text: 'name=a&threads=1', is: undefined, why: 'a form' },
  { text: '{"name":"a"', is: undefined, why: 'broken off' },
  { text: '{"name":1}', is: undefined, why: 'a number for a string' },
  { text: '{"threads":"1"}', is: undefined, why: 'a string for a number' },
  { text: '{"threads":1.5}', is: undefined, why: 'no whole number' },
  { text: '{"envs":"A=1"}', is: undefined, why: 'no list' },
  { text: '{"envs":[1]}', is: undefined, why: 'a list of other things' },
  { text: '[]', is: undefined, why: 'a list as a whole' },
  { text: '"a"', is: undefined, why: 'a string as a whole' },
]

for (const { text, is, why } of JSON_ROWS) {
  it(`request body as Go reads it: ${why}`, () => {
    assert.deepEqual(decodeGoJson(text, FIELDS), is)
  })
}

it('whatever follows the first value changes nothing', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.string(), (extra, tail) => {
      const text = JSON.stringify({ ...extra, name: 'a', threads: 3, envs: ['X="{'] })
      const alone = decodeGoJson(text, FIELDS)
      // Such a tail would be another value of one of our fields only by being part of the first, which it is not.
      assert.deepEqual(decodeGoJson(`${text} ${tail}`, FIELDS), alone)
    }),
  )
})

it('base64: padded and standard, line ends do not count', () => {
  assert.equal(decodeGoBase64('aGVs\nbG8=\r\n')?.toString(), 'hello')
  assert.equal(decodeGoBase64('')?.length, 0)
  for (const text of ['aGVsbG8', 'aGVsbG8 =', 'aGVs-_8=', '!!!!', 'a===', '====', 'aGVs=G8=']) {
    assert.equal(decodeGoBase64(text), undefined, text)
  }
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => {
      const text = Buffer.from(bytes).toString('base64')
      assert.deepEqual(decodeGoBase64(text), Buffer.from(bytes))
    }),
  )
})

it('times are printed as Go prints them: without zeros at the end', () => {
  const start = Date.UTC(2025, 0, 30, 11, 6, 31)
  assert.deepEqual(
    [0, 5, 120, 100, 999].map((ms) => goTime(start + ms)),
    [
      '2025-01-30T11:06:31Z',
      '2025-01-30T11:06:31.005Z',
      '2025-01-30T11:06:31.12Z',
      '2025-01-30T11:06:31.1Z',
      '2025-01-30T11:06:31.999Z',
    ],
  )
  assert.equal(goTime(Date.UTC(2025, 0, 30, 10, 0, 0)), '2025-01-30T10:00:00Z')
})

function line(handler: string, level: NodeLogLine['level'], text: string): NodeLogLine {
  return { node: 'n1', atMs: 0, fn: 'a', release: 'r1-abababab', handler, level, text }
}

it('logs: per handler first all of stdout, then all of stderr, with 64 hex digits for the handler', () => {
  const text = logText('a', [
    line('h1', 'error', 'e1'),
    line('h2', 'info', 'o2'),
    line('h1', 'info', 'o1'),
  ])
  const lines = text.split('\n')
  assert.equal(lines.pop(), '')
  const match = lines.map((each) =>
    /^function=a handler=([0-9a-f]{64}) 1970-01-01T00:00:00Z (..)$/.exec(each),
  )
  assert.deepEqual(
    match.map((each) => each?.[2]),
    ['o1', 'e1', 'o2'],
  )
  assert.equal(match[0]?.[1], match[1]?.[1])
  assert.notEqual(match[0]?.[1], match[2]?.[1])
})

const ZIP = Buffer.from('zip').toString('base64')

function settingsOf(body: object): unknown {
  const parsed = parseUpload(
    JSON.stringify({ name: 'a', env: 'nodejs', threads: 1, zip: ZIP, ...body }),
  )
  assert.ok('ok' in parsed)
  return parsed.ok().settings
}

it('threads become handlers, envs the environment; the network is open and errors are text, as there', () => {
  const common = { network: 'outbound', errors: 'tinyfaas' }
  assert.deepEqual(settingsOf({ threads: 4, envs: ['A=1', 'B=x=y', 'none', '=x', 'a b=1'] }), {
    ...common,
    replicas: 4,
    env: { A: '1', B: 'x=y' },
  })
  assert.deepEqual(settingsOf({ threads: 0, envs: null }), { ...common, replicas: 1, env: {} })
})

it('what tinyFaaS refuses is refused', () => {
  for (const body of [
    { name: '' },
    { name: 'a-b' },
    { name: 'a/b' },
    { name: 'ä' },
    { env: 'cobol' },
    { env: '' },
    { threads: -1 },
    { threads: 65 },
    { zip: 'no base64' },
  ]) {
    assert.throws(() => settingsOf(body), { name: 'Fault' }, JSON.stringify(body))
  }
})

it('an upload is answered with one line per protocol that is on, without a host', () => {
  assert.equal(
    uploadAnswer('a', { http: 8000, coap: 5683, grpc: 0 }),
    'coap://:5683/a\nhttp://:8000/a\n',
  )
})
