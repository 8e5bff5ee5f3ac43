import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { ClientCall, RunnerSession } from '#test/runner-client.ts'
import type { Files } from '#test/runner-rows.ts'
import { RunnerScope } from '#test/runner-scope.ts'

// Of digits: a part of it is JSON, too.
const FIRST = '1'.repeat(1_000)
const REST = '2'.repeat(1_000)

/** Every way to a body, each to its text. */
const READS: Readonly<Record<string, string>> = {
  'text()': 'request.text()',
  'json()': 'request.json().then(String)',
  'bytes()': 'request.bytes().then(String)',
  'arrayBuffer()': 'request.arrayBuffer().then(String)',
  'blob()': 'request.blob().then((blob) => blob.text())',
  'the stream': 'streamed(request.body)',
  'a clone': 'request.clone().text()',
  'a new Request': 'new Request(request).text()',
}

/** Reads the body when `before` is done, and logs what became of that. */
const reader = (read: string, before: string, answer = ''): Files => ({
  'index.mjs': `
async function streamed(body) {
  let text = ''
  for await (const part of body) text += Buffer.from(part).toString()
  return text
}
const later = (ms, value) => new Promise((resolve) => setTimeout(resolve, ms, value))
async function log(request, signal) {
  const aborted = new Promise((resolve) => signal.addEventListener('abort', () => resolve()))
  try {
    ${before}
    const text = await Promise.race([${read}, later(20_000, undefined)])
    console.log('read: ' + (text === undefined ? 'not even an error' : text.length))
  } catch (error) {
    console.log('read: error')
  }
}
export default async (request, { signal }) => {
  const logged = log(request, signal)
  ${answer}
  await logged
  return new Response('late')
}`,
})

/** What ends a call whose body is still coming. */
const ENDS: Readonly<Record<string, (call: ClientCall, session: RunnerSession) => void>> = {
  'its caller goes away': (call, session) => session.cancel(call),
  'the connection is lost': (_call, session) => session.socket.destroy(),
}

/** What the function logs of its reading when `end` happens to its call, after `sent` of the body. */
async function logged(
  files: Files,
  sent: readonly string[],
  end: (call: ClientCall, session: RunnerSession) => void,
): Promise<string> {
  await using scope = await RunnerScope.start({ runtime: 'nodejs', fn: files })
  const session = await scope.ready()
  const call = session.begin({ body: sent[0] ?? '' }, false)
  for (const [at, part] of sent.slice(1).entries()) {
    await session.sendBody(call, Buffer.from(part), at === sent.length - 2)
  }
  await session.ping()
  end(call, session)
  const next = session.socket.destroyed ? await scope.again() : session
  const { text } = await next.log((line) => line.text.startsWith('read: '))
  return text
}

describe(
  'nodejs: a body that breaks off is an error, never the whole',
  { timeout: 120_000 },
  () => {
    for (const [endName, end] of Object.entries(ENDS)) {
      for (const [readName, read] of Object.entries(READS)) {
        it(`${endName} before it is read: ${readName}`, async () => {
          assert.equal(await logged(reader(read, 'await aborted'), [FIRST], end), 'read: error')
        })
      }

      it(`${endName} while it is read`, async () => {
        assert.equal(await logged(reader('request.text()', ''), [FIRST], end), 'read: error')
      })

      it(`${endName} when it has come: it is whole`, async () => {
        const files = reader('request.text()', 'await aborted')
        assert.equal(await logged(files, [FIRST, REST], end), 'read: 2000')
      })
    }

    it('the function answers before it is read', async () => {
      const files = reader('request.text()', 'await later(50)', 'return new Response("early")')
      assert.equal(await logged(files, [FIRST], () => undefined), 'read: error')
    })

    it('the function answers while it is read', async () => {
      const files = reader('request.text()', '', 'return new Response("early")')
      assert.equal(await logged(files, [FIRST], () => undefined), 'read: error')
    })
  },
)

it('nodejs: a body that is being read stays with its reader', { timeout: 30_000 }, async () => {
  const read =
    '(async () => { const text = request.text(); const again = await streamed(request.body); return await text + again })()'
  await using scope = await RunnerScope.start({ runtime: 'nodejs', fn: reader(read, '') })
  const session = await scope.ready()
  const call = session.begin({ body: FIRST }, false)
  await session.ping()
  await session.sendBody(call, Buffer.from(REST), true)
  await call.answer()
  const { text } = await session.log((line) => line.text.startsWith('read: '))
  assert.equal(text, 'read: 2000')
})

const native = (read: string): Files => ({
  'index.mjs': `export default async (request) => new Response(${read})`,
})

/** Ways to a body as text, which is read as UTF-8. */
const TEXTS: Readonly<Record<string, Files>> = {
  'text()': native('await request.text()'),
  'json()': native('JSON.stringify(await request.json())'),
  'text() of a body that has been looked at': native('(request.body, await request.text())'),
  classic: { 'index.js': 'module.exports = (req, res) => res.send(req.body)' },
}

describe('nodejs: a byte order mark is no part of the text', { timeout: 60_000 }, () => {
  const marked = Buffer.from('\u{feff}{"a":"\u{feff}"}')
  for (const [name, files] of Object.entries(TEXTS)) {
    it(name, async () => {
      await using scope = await RunnerScope.start({ runtime: 'nodejs', fn: files })
      const session = await scope.ready()
      assert.equal((await session.call({ body: marked })).text, '{"a":"\u{feff}"}', 'whole')
      const call = session.begin({ body: marked.subarray(0, 2) }, false)
      await session.sendBody(call, marked.subarray(2), true)
      assert.equal((await call.answer()).text, '{"a":"\u{feff}"}', 'in parts')
    })
  }

  it('but of the bytes', async () => {
    const fn = native('await request.bytes()')
    await using scope = await RunnerScope.start({ runtime: 'nodejs', fn })
    const session = await scope.ready()
    assert.deepEqual((await session.call({ body: marked })).body, marked)
  })
})

it('nodejs: what a call leaves behind does not hold its body', { timeout: 30_000 }, async () => {
  await using scope = await RunnerScope.start({
    runtime: 'nodejs',
    fn: {
      'index.js': `const later = () => undefined
module.exports = (req, res) => {
  setTimeout(later, 3_600_000)
  res.send(String(process.memoryUsage().arrayBuffers))
}`,
    },
  })
  const session = await scope.ready()
  const body = Buffer.alloc(1_048_576)
  let most = 0
  for (let n = 0; n < 64; n += 1) {
    const call = session.begin({ headers: ['content-length', String(body.length)] }, false)
    await session.sendBody(call, body, true)
    most = Math.max(most, Number((await call.answer()).text))
  }
  assert.ok(most < 24 * 1_048_576, `${most} bytes of buffers at most`)
})
