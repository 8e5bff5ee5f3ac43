import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { eventually } from '#test/eventually.ts'
import { encodeFrame, encodeRequest, FrameReader, TYPE, type Frame } from '#test/runner-client.ts'
import type { Files } from '#test/runner-rows.ts'
import { RunnerScope } from '#test/runner-scope.ts'

/** Functions that keep what they answer with, as the web standard lets them: a `Response` takes its own copy when it is made. */
const REUSES: Readonly<Record<string, string>> = {
  bytes: 'new Response(scratch.fill(who))',
  'a part of bytes': 'new Response(scratch.fill(who).subarray(4, 5))',
  'an ArrayBuffer': 'new Response(scratch.fill(who).buffer)',
  'words of two bytes': 'new Response(new Uint16Array(scratch.fill(who).buffer))',
  'a view of any type': 'new Response(new DataView(scratch.fill(who).buffer))',
  'bytes that somebody has looked at': 'looked(new Response(scratch.fill(who)))',
  headers: '(headers.set("x-who", name), new Response(name, { headers }))',
  'an object of headers': '(fields["x-who"] = name, new Response(name, { headers: fields }))',
  'a list of headers': '(pairs[0][1] = name, new Response(name, { headers: pairs }))',
  'a map of headers': '(map.set("x-who", name), new Response(name, { headers: map }))',
  'a status': '(init.status = 200 + who, new Response(name, init))',
}
const reusing = (response: string, bytes: number): Files => ({
  'index.mjs': `
const scratch = new Uint8Array(${bytes})
const [headers, fields, pairs, map, init] = [new Headers(), {}, [['x-who', '']], new Map(), {}]
const looked = (response) => (response.headers, response)
export default async (request) => {
  const name = new URL(request.url).pathname.slice(1)
  const who = name.charCodeAt(0)
  return ${response}
}`,
})

describe('nodejs: what a function answers with may be used again at once', () => {
  for (const [name, response] of Object.entries(REUSES)) {
    it(`${name}, by the next request of the same packet`, { timeout: 30_000 }, async () => {
      await using scope = await RunnerScope.start({ runtime: 'nodejs', fn: reusing(response, 8) })
      const session = await scope.ready()
      const calls = [session.track(1), session.track(2)]
      const requests = [encodeRequest(1, { path: '/A' }), encodeRequest(2, { path: '/B' })]
      session.socket.write(Buffer.concat(requests))
      for (const [call, who] of [...calls.entries()].map(
        ([at, each]) => [each, 'AB'[at]] as const,
      )) {
        const { body, headers, status, error } = await call.answer()
        assert.equal(error, undefined)
        assert.ok(body.length > 0)
        assert.equal(body.toString(), who?.repeat(body.length))
        if (response.includes('x-who')) assert.equal(headers[headers.indexOf('x-who') + 1], who)
        if (response.includes('status')) assert.equal(status, 200 + (who?.charCodeAt(0) ?? 0))
      }
    })
  }

  it('bytes of which most wait for their caller', { timeout: 30_000 }, async () => {
    const fn = reusing('new Response(scratch.fill(who))', 1_000_000)
    await using scope = await RunnerScope.start({ runtime: 'nodejs', fn })
    const session = await scope.ready()
    session.autoGrant = false
    const calls = ['A', 'B'].map((who) => ({ who, call: session.begin({ path: `/${who}` }) }))
    await eventually(() => calls.every(({ call }) => call.bodyBytes === session.windowBytes))
    for (const { who, call } of calls) {
      while (!call.done) {
        const before = call.bodyBytes
        session.grant(call, session.windowBytes)
        await eventually(() => call.done || call.bodyBytes > before)
      }
      assert.equal((await call.answer()).text, who.repeat(1_000_000))
    }
  })
})

interface Sent {
  readonly send: string
  /** What the answer is made of, each of them many times. */
  readonly letters: string
  readonly bytes: number
}

/** Functions that use a large buffer again when they are told that it has been sent. */
const SENT: Readonly<Record<string, Sent>> = {
  'by the callback of write': {
    send: `
  const piece = Buffer.alloc(100_000)
  let n = 0
  const next = () => (n < 16 ? res.write(piece.fill(65 + n++), next) : res.end())
  next()`,
    letters: 'ABCDEFGHIJKLMNOP',
    bytes: 1_600_000,
  },
  "by 'finish', in one frame": {
    send: `
  const all = Buffer.alloc(1_000_000, 'A')
  res.on('finish', () => all.fill('Z')).send(all)`,
    letters: 'A',
    bytes: 1_000_000,
  },
  "by 'finish', above the window": {
    send: `
  const all = Buffer.alloc(1_600_000, 'A')
  res.on('finish', () => all.fill('Z')).send(all)`,
    letters: 'A',
    bytes: 1_600_000,
  },
}

describe('nodejs: bytes that are used again when they have been sent', { timeout: 60_000 }, () => {
  for (const [name, { send, letters, bytes }] of Object.entries(SENT)) {
    it(`${name}, go as they were`, async () => {
      const fn = { 'index.js': `module.exports = (req, res) => {${send}\n}` }
      await using scope = await RunnerScope.start({ runtime: 'nodejs', fn })
      const session = await scope.listener.session()
      session.windowBytes = 1_048_576
      await session.init({ dir: scope.dir })
      // Not read from: most of the answer does not fit into the kernel's buffer.
      session.socket.pause()
      const call = session.begin()
      await new Promise((resolve) => {
        setTimeout(resolve, 300)
      })
      session.socket.resume()
      const { text } = await call.answer()
      assert.equal(text.length, bytes)
      assert.equal(text.replaceAll(/(.)\1*/g, '$1'), letters)
    })
  }
})

const STORES = `
const own = new (require('node:async_hooks').AsyncLocalStorage)()
module.exports = (req, res) => own.run('mine', () => {
  res.on('finish', () => console.log('finish: ' + own.getStore()))
  if (req.method === 'PUT') return res.send(Buffer.alloc(300_000))
  res.write(Buffer.alloc(300_000), () => res.end(own.getStore()))
})`

describe('nodejs: callbacks of an answer', { timeout: 60_000 }, () => {
  it('have the values of the function that gave them, however large the answer', async () => {
    await using scope = await RunnerScope.start({ runtime: 'nodejs', fn: { 'index.js': STORES } })
    const session = await scope.ready()
    const written = await session.call({ body: 'x' })
    assert.equal(written.text.slice(300_000), 'mine')
    await session.call({ method: 'PUT', body: 'x' })
    const told = () => session.logs.filter(({ text }) => text === 'finish: mine').length
    await eventually(() => told() === 2)
  })
})

const leaving = (text: string): string => `
const left = new (require('node:async_hooks').AsyncLocalStorage)()
module.exports = (req, res) => {
  const seen = String(left.getStore())
  left.enterWith('of another call')
  ${text}
}`

describe('nodejs: what a function leaves in an AsyncLocalStorage', { timeout: 60_000 }, () => {
  const rows: Readonly<Record<string, string>> = {
    native: `${leaving('return new Response(seen)')}\nmodule.exports.contract = 'native'`,
    classic: leaving('res.send(seen)'),
  }
  for (const [contract, text] of Object.entries(rows)) {
    for (const parts of [false, true]) {
      it(`is not met by the next call of the same packet: ${contract}${parts ? ', bodies in parts' : ''}`, async () => {
        const fn = { 'index.js': text }
        await using scope = await RunnerScope.start({ runtime: 'nodejs', fn })
        const session = await scope.ready()
        const calls = [session.track(1), session.track(2)]
        const frames = calls.map(({ id }) => encodeRequest(id, { body: 'x' }, !parts))
        if (parts) frames.push(...calls.map(({ id }) => encodeFrame(TYPE.DATA, id, BODY, true)))
        session.socket.write(Buffer.concat(frames))
        for (const call of calls) assert.equal((await call.answer()).text, 'undefined')
      })
    }
  }
})

const BODY = Buffer.from('the rest')

/** Functions that leave a line unfinished, or more lines than the agent takes, and the last of what they write. */
const LOGS: Readonly<Record<string, { readonly files: Files; readonly last: string }>> = {
  'a streamed answer whose end comes by itself': {
    files: {
      'index.mjs': `export default () => new Response(new ReadableStream({
  async start(to) {
    to.enqueue(Buffer.from('a'))
    await new Promise((resolve) => setTimeout(resolve, 50))
    process.stdout.write('unfinished')
    to.close()
  }
}))`,
    },
    last: 'unfinished',
  },
  'an answer above the window': {
    files: {
      'index.mjs': `export default () => {
  process.stdout.write('unfinished')
  return new Response('x'.repeat(1_000_000))
}`,
    },
    last: 'unfinished',
  },
  'classic: write and end': {
    files: {
      'index.js': `module.exports = (req, res) => {
  res.write('a')
  process.stderr.write('unfinished')
  res.end()
}`,
    },
    last: 'unfinished',
  },
}

describe('nodejs: log lines of a call', { timeout: 60_000 }, () => {
  for (const [name, { files, last }] of Object.entries(LOGS)) {
    it(`all come before its end, when its id is free for another: ${name}`, async () => {
      await using scope = await RunnerScope.start({ runtime: 'nodejs', fn: files })
      const session = await scope.ready()
      const frames = seen(session.socket)
      const call = session.begin()
      const line = await session.log(({ text }) => text === last)
      assert.equal(line.id, call.id)
      await call.answer()
      assert.deepEqual(logIdsAfterEnd(frames, call.id), [])
    })
  }

  it('are frames of their own, whoever writes them', async () => {
    await using scope = await RunnerScope.start({
      runtime: 'nodejs',
      fn: {
        'index.mjs': `export default (request, context) => {
  context.log.warn('one\\ntwo\\r\\n%s', 'three')
  setTimeout(() => { throw new Error('behind the answer') }, 1)
  void Promise.reject(new Error('seen by nobody'))
  return new Response('done')
}`,
      },
    })
    const session = await scope.ready()
    const call = session.begin()
    await session.log(({ text }) => text === 'Error: behind the answer')
    await session.log(({ text }) => text === 'unhandled rejection: Error: seen by nobody')
    await session.ping()
    const { id } = call
    assert.deepEqual(
      session.logs.slice(0, 3),
      ['one', 'two', 'three'].map((text) => ({ id, level: 2, text })),
    )
    assert.ok(session.logs.every(({ text }) => !text.includes('\n')))
  })

  it('left unfinished when the connection was lost come by the next one, without its id', async () => {
    const files = {
      'index.mjs':
        'export default () => (process.stdout.write("unfinished"), new Promise(() => {}))',
    }
    await using scope = await RunnerScope.start({ runtime: 'nodejs', fn: files })
    const session = await scope.ready()
    session.begin()
    await session.ping()
    session.socket.destroy()
    const next = await scope.again()
    await next.ping()
    assert.deepEqual(next.logs, [{ id: 0, level: 1, text: 'unfinished' }])
  })

  it('that had to wait until it had ended are no longer its own', async () => {
    await using scope = await RunnerScope.start({
      runtime: 'nodejs',
      fn: {
        'index.mjs': `import { writeFileSync } from 'node:fs'
export default () => {
  for (let n = 0; n < 300; n += 1) console.log('x'.repeat(16_000))
  console.log('last')
  // Behind the answer.
  setTimeout(() => writeFileSync('done', ''), 100)
  return new Response('done')
}`,
      },
    })
    const session = await scope.ready()
    const frames = seen(session.socket)
    const call = session.begin()
    // Not read from: what the function writes piles up in the runner.
    session.socket.pause()
    await eventually(() => existsSync(join(scope.dir, 'done')))
    session.socket.resume()
    await session.log(({ text }) => text === 'last')
    await call.answer()
    const late = logIdsAfterEnd(frames, call.id)
    assert.ok(late.length > 0, 'some had to wait')
    assert.deepEqual(
      late.filter((id) => id !== 0),
      [],
    )
  })
})

/** All frames that come from now on. */
function seen(socket: NodeJS.EventEmitter): readonly Frame[] {
  const reader = new FrameReader()
  const frames: Frame[] = []
  socket.on('data', (bytes: Buffer) => frames.push(...reader.push(bytes)))
  return frames
}

/** Whose the log lines are that come behind the end of a call. */
function logIdsAfterEnd(frames: readonly Frame[], id: number): readonly number[] {
  const at = frames.findIndex((frame) => frame.id === id && frame.end)
  assert.ok(at >= 0, 'its end was seen')
  return frames.slice(at).flatMap((frame) => (frame.type === TYPE.LOG ? [frame.id] : []))
}
