import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { eventually } from '#test/eventually.ts'
import type { Files } from '#test/runner-rows.ts'
import { RunnerScope } from '#test/runner-scope.ts'

/** What every function here has: how many calls work at once, and the most that ever did. */
const COUNT = `
let running = 0
let most = 0
const work = async (ms) => {
  running += 1
  most = Math.max(most, running)
  await new Promise((resolve) => setTimeout(resolve, ms))
  running -= 1
}
`

const native = (body: string): Files => ({
  'index.mjs': `${COUNT}
export default async (request, context) => {
  if (request.method === 'GET') return Response.json(most)
  ${body}
}`,
})
const classic = (head: string, body: string): Files => ({
  'index.js': `${COUNT}
module.exports = ${head} => {
  if (req.method === 'GET') return void res.json(most)
  ${body}
}`,
})

/** Functions that go on for 1,500 ms after their call was cancelled. */
const GO_ON: Readonly<Record<string, Files>> = {
  'a promise that resolves': native('await work(1_500); return new Response("late")'),
  'a promise that rejects': native('await work(1_500); throw new Error("late")'),
  'a body whose source takes time to stop': native(`
    const source = { pull: (to) => to.enqueue(new Uint8Array(65_536)), cancel: () => work(1_500) }
    return new Response(new ReadableStream(source))`),
  'classic: a promise': classic('async (req, res)', 'await work(1_500)'),
  'classic: send in a callback': classic('(req, res)', 'work(1_500).then(() => res.send("late"))'),
  'classic: end in a callback': classic('(req, res)', 'work(1_500).then(() => res.end())'),
  'classic: next in a callback': classic('(req, res, next)', 'work(1_500).then(() => next())'),
}

/** Functions that let go of a cancelled call as soon as they are told. */
const LET_GO: Readonly<Record<string, Files>> = {
  'the signal is passed on': native(`
    await new Promise((resolve, reject) => {
      context.signal.addEventListener('abort', () => reject(context.signal.reason))
    })`),
  'a body that is written for ever': native(
    'return new Response(new ReadableStream({ pull: (to) => to.enqueue(new Uint8Array(65_536)) }))',
  ),
  'classic: close is listened to': classic('(req, res)', 'req.on("close", () => undefined)'),
  'classic: the answer has begun': classic('(req, res)', 'res.write("part")'),
  'classic: a promise that settled without an answer': classic('async (req, res)', ''),
}

/** Functions that are done, and whose answers do not fit into the window. */
const ANSWERED: Readonly<Record<string, Files>> = {
  text: native('return new Response("x".repeat(1_000_000))'),
  bytes: native('return new Response(new Uint8Array(1_000_000))'),
  'one part of a stream': native(`
    const start = (to) => (to.enqueue(new Uint8Array(1_000_000)), to.close())
    return new Response(new ReadableStream({ start }))`),
  'classic: a promise': classic('async (req, res)', 'res.send("x".repeat(1_000_000))'),
  'classic: no promise': classic('(req, res)', 'res.send("x".repeat(1_000_000))'),
}

describe('nodejs: a cancelled call', { timeout: 180_000 }, () => {
  for (const [name, fn] of Object.entries(GO_ON)) {
    it(`keeps its place until the function has let go: ${name}`, async () => {
      await using scope = await RunnerScope.start({ runtime: 'nodejs', fn })
      const session = await scope.ready({ concurrency: 1 })
      for (let round = 0; round < 2; round += 1) {
        const call = session.begin()
        await session.ping()
        session.cancel(call)
        const other = await session.call()
        assert.equal(other.error?.kind, 4, 'its place is taken')
        assert.equal((await call.answer()).error?.kind, 3)
      }
      assert.equal((await session.call({ method: 'GET' })).text, '1')
    })
  }

  for (const [name, fn] of Object.entries(LET_GO)) {
    it(`ends with the function: ${name}`, async () => {
      await using scope = await RunnerScope.start({ runtime: 'nodejs', fn })
      const session = await scope.ready({ concurrency: 1 })
      for (let round = 0; round < 4; round += 1) {
        const call = session.begin()
        await session.ping()
        session.cancel(call)
        assert.equal((await call.answer()).error?.kind, 3)
      }
      assert.equal((await session.call({ method: 'GET' })).error, undefined)
    })
  }

  it('whose body is still coming ends at once', async () => {
    await using scope = await RunnerScope.start({
      runtime: 'nodejs',
      fn: classic('(req, res)', 'res.send("late")'),
    })
    const session = await scope.ready({ concurrency: 1 })
    const call = session.begin({ body: 'first' }, false)
    session.cancel(call)
    assert.equal((await call.answer()).error?.kind, 3)
    assert.equal((await session.call()).text, 'late')
  })

  for (const [name, fn] of Object.entries(ANSWERED)) {
    it(`whose answer waits for its caller ends at once: ${name}`, async () => {
      await using scope = await RunnerScope.start({ runtime: 'nodejs', fn })
      const session = await scope.ready({ concurrency: 1 })
      session.autoGrant = false
      const call = session.begin()
      await eventually(() => call.bodyBytes === session.windowBytes)
      session.cancel(call)
      await Promise.race([call.answer(), sleep(20_000, undefined, { ref: false })])
      assert.equal(call.error?.kind, 3)
      assert.equal((await session.call({ method: 'GET' })).error, undefined)
    })

    it(`whose answer waits for its caller is not ended by a part of it: ${name}`, async () => {
      await using scope = await RunnerScope.start({ runtime: 'nodejs', fn })
      const session = await scope.ready({ concurrency: 1 })
      session.autoGrant = false
      const call = session.begin()
      await eventually(() => call.bodyBytes === session.windowBytes)
      session.socket.cork()
      session.cancel(call)
      session.grant(call, session.windowBytes)
      session.socket.uncork()
      await Promise.race([call.answer(), sleep(20_000, undefined, { ref: false })])
      assert.deepEqual([call.error?.kind, call.bodyBytes], [3, session.windowBytes])
    })
  }
})
