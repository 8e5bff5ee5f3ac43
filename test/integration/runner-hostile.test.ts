import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import type { Runtime } from '#shared/schemas/names.ts'
import { eventually } from '#test/eventually.ts'
import { encodeFrame, encodeRequest, TYPE } from '#test/runner-client.ts'
import { RunnerScope } from '#test/runner-scope.ts'

interface StreamVector {
  readonly name: string
  readonly receiver: 'agent' | 'runner'
  readonly after: 'connect' | 'welcome' | 'ready'
  readonly error: string | null
  readonly hex: string
}

const file = new URL('../../runtimes/vectors/streams.json', import.meta.url)
const all: readonly StreamVector[] = JSON.parse(readFileSync(file, 'utf8'))
const vectors = all.filter(({ receiver }) => receiver === 'runner')

const SUBJECTS: readonly { readonly runtime: Runtime; readonly fixture: string }[] = [
  { runtime: 'nodejs', fixture: 'nodejs' },
  { runtime: 'python3', fixture: 'python3' },
  { runtime: 'python3', fixture: 'python3-async' },
  { runtime: 'binary', fixture: 'binary' },
]

/** The same numbers at every run: a failure can be looked at again. */
function random(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 0x1_00_00_00_00
  }
}

for (const { runtime, fixture } of SUBJECTS) {
  describe(`runner ${fixture}, spoken to badly`, { timeout: 60_000 }, () => {
    it('every invalid stream closes the connection, and the runner comes back unharmed', async () => {
      assert.ok(vectors.length >= 15)
      await using young = await RunnerScope.start({ runtime, fn: fixture })
      for (const vector of vectors.filter(({ after }) => after !== 'ready')) {
        const session = await young.listener.session()
        await session.hello()
        if (vector.after === 'welcome') session.welcome()
        session.socket.write(Buffer.from(vector.hex, 'hex'))
        await session.closed
      }
      await using grown = await RunnerScope.start({ runtime, fn: fixture })
      let session = await grown.ready()
      for (const vector of vectors.filter(({ after }) => after === 'ready')) {
        session.socket.write(Buffer.from(vector.hex, 'hex'))
        if (vector.error === null) {
          await session.ping()
        } else {
          await session.closed
          session = await grown.again()
        }
      }
      assert.equal((await session.call({ path: '/echo', body: 'well' })).text, 'well')
    })

    it('more body than granted closes the connection', async () => {
      await using scope = await RunnerScope.start({ runtime, fn: fixture })
      const session = await scope.ready()
      const call = session.begin({ path: '/never' }, false)
      session.send(TYPE.DATA, call.id, Buffer.alloc(session.windowBytes + 1))
      await session.closed
      const next = await scope.again()
      assert.equal((await next.call({ path: '/echo', body: 'well' })).text, 'well')
    })

    it('a grant above the window is void: only a few windows are sent, and PING is answered', async () => {
      await using scope = await RunnerScope.start({ runtime, fn: fixture })
      const session = await scope.ready()
      session.autoGrant = false
      const call = session.begin({ path: '/flood' })
      for (let n = 0; n < 3; n++) session.grant(call, 0xffff_ffff)
      await eventually(() => call.bodyBytes >= session.windowBytes)
      await session.ping()
      await new Promise((resolve) => setTimeout(resolve, 100))
      // Each of the three fills the window up once at most.
      assert.ok(call.bodyBytes <= 4 * session.windowBytes, String(call.bodyBytes))
    })

    it('a stream cut at any place means the same', async () => {
      await using scope = await RunnerScope.start({ runtime, fn: fixture })
      const session = await scope.ready()
      const next = random(7)
      const calls = Array.from({ length: 20 }, (_, at) => session.track(at + 1))
      const bytes = Buffer.concat(
        calls.flatMap(({ id }) => [
          encodeRequest(id, { path: '/echo', body: `${id} ` }, false),
          encodeFrame(TYPE.DATA, id, Buffer.alloc(Math.floor(next() * 3_000), 'x')),
          encodeFrame(TYPE.DATA, id, Buffer.from('end'), true),
          encodeFrame(TYPE.PING, 0, Buffer.from('p')),
        ]),
      )
      session.socket.setNoDelay?.(true)
      for (let at = 0; at < bytes.length;) {
        const size = 1 + Math.floor(next() ** 3 * 4_000)
        session.socket.write(bytes.subarray(at, at + size))
        at += size
        await new Promise((resolve) => {
          setImmediate(resolve)
        })
      }
      for (const call of calls) {
        const { text, error } = await call.answer()
        assert.equal(error, undefined)
        assert.match(text, new RegExp(`^${call.id} x*end$`))
      }
    })

    it('a connection that ends in the middle of a frame is no reason to end', async () => {
      await using scope = await RunnerScope.start({ runtime, fn: fixture })
      let session = await scope.ready()
      const whole = encodeRequest(1, { path: '/echo', body: 'x'.repeat(100) })
      for (const cut of [1, 11, 12, 13, 17, 30, whole.length - 1]) {
        session.socket.end(whole.subarray(0, cut))
        await session.closed
        session = await scope.again()
      }
      assert.equal((await session.call({ path: '/echo', body: 'well' })).text, 'well')
    })
  })
}
