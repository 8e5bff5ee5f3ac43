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
    const text = await Promise.race([${read}, later(1_000, undefined)])
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
