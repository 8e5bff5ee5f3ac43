import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { describe, it } from 'node:test'
import { Fault } from '#shared/fault.ts'
import type { Body, Lane, RunnerLink } from '#agent/invoke/index.ts'
import { eventually } from '#test/eventually.ts'
import { LANE_SETTINGS, invocation } from '#test/invoke-scope.ts'
import { RunnerProcess } from '#test/runner-process.ts'

const RELEASE = 'r1-0a1b2c3d'
const BYTES = ['content-type', 'application/octet-stream']
const STREAM =
  'module.exports = (request) => new Response(request.body); module.exports.contract = "native"'
const ECHO = 'module.exports = (req, res) => { res.send(req.body) }'

describe('a real runner', () => {
  it('answers small and large bodies, whole and streamed, unchanged', async () => {
    await using runner = await RunnerProcess.start(STREAM)
    const { router } = runner.scope
    router.ensure('echo', LANE_SETTINGS).attach(runner.link, RELEASE)
    for (const size of [0, 1, 100, 65_536, 262_144, 262_145, 1_048_576, 5_000_000]) {
      const sent = randomBytes(size)
      const whole = await router.invoke(invocation({ headers: BYTES, body: sent }))
      assert((await all(whole.body)).equals(sent), `${size} bytes, whole`)
      const source = Readable.from(cut(sent, 50_000), { objectMode: false })
      const streamed = await router.invoke(invocation({ headers: BYTES, body: source }))
      assert((await all(streamed.body)).equals(sent), `${size} bytes, streamed`)
    }
    assert.equal(runner.link.inFlight, 0)
  })

  it('a function that throws, exits, never answers or blocks its loop: each has its outcome, in time', async () => {
    await using runner = await RunnerProcess.start(`module.exports = (req, res) => {
      switch (req.path) {
        case '/throw': throw new TypeError('no')
        case '/hang': return void req.on('close', () => undefined)
        case '/block': for (;;);
        case '/exit': process.exit(3)
        default: console.log('hello'); res.send('ok')
      }
    }`)
    const { router } = runner.scope
    const overruns: RunnerLink[] = []
    const settings = { ...LANE_SETTINGS, timeoutMs: 10_000 }
    const lane = router.ensure('echo', settings, { onOverrun: (link) => overruns.push(link) })
    lane.attach(runner.link, RELEASE)
    const code = async (path: string, deadlineMs = 9_000): Promise<string> => {
      try {
        return String((await router.invoke(invocation({ path, deadlineMs }))).status)
      } catch (error) {
        return Fault.from(error).code
      }
    }
    assert.equal(await code('/throw'), 'FUNCTION_ERROR')
    assert.equal(await code('/hang', 50), 'DEADLINE_EXCEEDED')
    await eventually(() => runner.link.inFlight === 0)
    assert.equal(await code('/ok'), '200')
    await eventually(() => runner.scope.lines.some(({ text }) => text === 'hello'))

    const before = performance.now()
    assert.equal(await code('/block', 100), 'DEADLINE_EXCEEDED')
    assert(performance.now() - before < 8_000)
    await eventually(() => overruns.length === 1, { timeoutMs: 30_000 })
    assert.equal(overruns[0], runner.link)

    await using next = await RunnerProcess.start('module.exports = () => process.exit(3)')
    lane.attach(next.link, RELEASE)
    runner.child.kill('SIGKILL')
    assert.equal(await code('/exit'), 'FUNCTION_EXITED')
  })

  it('an agent that comes back finds the function still loaded', async () => {
    await using runner = await RunnerProcess.start(ECHO)
    runner.link.close()
    const again = await eventually(() => {
      const { link } = runner.scope.server
      return link === runner.link ? undefined : link
    })
    assert.equal(again.hello.state, 'ready')
    assert.equal(again.hello.release, RELEASE)
    await again.ready(AbortSignal.timeout(30_000))
    runner.scope.router.ensure('echo', LANE_SETTINGS).attach(again, RELEASE)
    assert.equal((await runner.scope.router.invoke(invocation())).status, 200)
  })

  it('shutdown lets calls in flight finish, then the runner exits with 0', async () => {
    await using runner = await RunnerProcess.start(
      'module.exports = (req, res) => { setTimeout(() => res.send("late"), 100) }',
    )
    runner.scope.router.ensure('echo', LANE_SETTINGS).attach(runner.link, RELEASE)
    const call = runner.scope.router.invoke(invocation())
    await eventually(() => runner.link.inFlight === 1)
    runner.link.shutdown()
    assert.equal((await call).status, 200)
    await eventually(() => runner.child.exitCode !== null)
    assert.equal(runner.child.exitCode, 0)
  })
})

describe('switching under load', () => {
  it('no call is lost when handlers are exchanged ten times under 32 callers', async () => {
    await using first = await RunnerProcess.start(ECHO)
    const { router } = first.scope
    const lane = router.ensure('echo', { ...LANE_SETTINGS, concurrency: 16, queue: 64 })
    lane.attach(first.link, RELEASE)
    const load = new Load(lane)
    const callers = Array.from({ length: 32 }, () => load.call(first))
    await using stack = new AsyncDisposableStack()
    let current = first.link
    for (let switches = 0; switches < 10; switches += 1) {
      const next = stack.use(await RunnerProcess.start(ECHO))
      const calls = load.answered
      lane.attach(next.link, RELEASE)
      await lane.drain(current, 5_000)
      assert.equal(current.inFlight, 0)
      current.shutdown()
      current = next.link
      await eventually(() => load.answered > calls + 500)
    }
    load.stop()
    await Promise.all(callers)
    assert.deepEqual(load.failures, [])
    assert(load.answered > 5_000, `${load.answered} calls`)
    assert.equal(lane.stats().calls.ok, load.answered)
  })
})

/** Callers that call again as soon as they are answered. */
class Load {
  answered = 0
  readonly failures: string[] = []
  readonly lane: Lane
  #stopped = false

  constructor(lane: Lane) {
    this.lane = lane
  }

  async call(through: RunnerProcess): Promise<void> {
    while (!this.#stopped) {
      try {
        const { status, body } = await through.scope.router.invoke(invocation({ headers: BYTES }))
        assert.equal(status, 200)
        assert.deepEqual(body, Buffer.from('hello'))
        this.answered += 1
      } catch (error) {
        this.failures.push(String(error))
        return
      }
    }
  }

  stop(): void {
    this.#stopped = true
  }
}

function* cut(bytes: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

async function all(body: Body): Promise<Buffer> {
  return Buffer.isBuffer(body) ? body : buffer(body)
}
