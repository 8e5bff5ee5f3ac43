import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Runtime } from '#shared/schemas/names.ts'
import { eventually } from '#test/eventually.ts'
import { cpuMsOf } from '#test/process-facts.ts'
import { encodeRequest, TYPE, type Answer } from '#test/runner-client.ts'
import { RunnerScope, type RunnerScopeOptions } from '#test/runner-scope.ts'
import { type Subject, SUBJECTS } from '#test/runner-subjects.ts'

/** Their functions are called when the request's body is there as a whole: no answer comes before. */
const READ_WHOLE: ReadonlySet<string> = new Set(['nodejs-classic', 'python3', 'python3-async'])

/** How often an id is used again, by what a call costs. */
const ROUNDS = { nodejs: 400, python3: 200, binary: 60 } as const satisfies Record<Runtime, number>

const HEADERS = ['x-one', 'eins', 'content-type', 'text/x-test']
const META = [...HEADERS, 'shoal-request-id', 'req-1', 'shoal-protocol', 'coap']

async function start(
  { runtime, fixture }: Subject,
  more: Partial<RunnerScopeOptions> = {},
): Promise<RunnerScope> {
  return RunnerScope.start({ runtime, fn: fixture, ...more })
}

function ok(answer: Answer, text: string): void {
  assert.deepEqual([answer.error, answer.status, answer.text], [undefined, 200, text])
}

for (const subject of SUBJECTS) {
  describe(`runner ${subject.fixture}: calls`, { timeout: 60_000 }, () => answers(subject))
  describe(`runner ${subject.fixture}: failures`, { timeout: 60_000 }, () => failures(subject))
  describe(`runner ${subject.fixture}: floods`, { timeout: 60_000 }, () => floods(subject))
  describe(`runner ${subject.fixture}: life`, { timeout: 60_000 }, () => life(subject))
}

function answers(subject: Subject): void {
  it('says who it is, loads the function with its environment and folder, and answers', async () => {
    await using scope = await start(subject)
    const session = await scope.listener.session()
    const hello = await session.hello()
    assert.deepEqual(
      [hello['protocol'], hello['handler'], hello['runtime'], hello['state'], hello['pid']],
      [{ min: 1, max: 1 }, 'test-handler', subject.runtime, 'empty', scope.child.pid],
    )
    const ready = await session.init({ dir: scope.dir, env: { GREETING: 'grüß dich' } })
    assert.deepEqual(ready, { ok: true })
    ok(await session.call({ path: '/env' }), 'grüß dich')
    assert.equal((await session.call({ path: '/cwd' })).text.trim(), scope.dir)
  })

  it('bodies come back unchanged: empty, every byte value, and 3 MiB in parts both ways', async () => {
    await using scope = await start(subject)
    const session = await scope.ready()
    const all = Buffer.from(Array.from({ length: 256 }, (_, at) => at))
    for (const body of [Buffer.alloc(0), Buffer.from('grüß'), all, randomBytes(5_000)]) {
      const answer = await session.call({ path: '/echo', body })
      assert.deepEqual([answer.status, answer.body], [200, body])
    }
    const large = randomBytes(3 * 1024 * 1024)
    for (const path of ['/echo', '/pass']) {
      const call = session.begin({ path, body: large.subarray(0, 1_000) }, false)
      await session.sendBody(call, large.subarray(1_000), true)
      const answer = await call.answer()
      assert.equal(answer.error, undefined)
      assert.ok(answer.body.equals(large), `${path}: ${answer.body.length} bytes`)
    }
  })

  it('a body whose first part fills the whole window goes on', async () => {
    await using scope = await start(subject)
    const session = await scope.ready()
    const { windowBytes } = session
    const large = randomBytes(windowBytes * 2)
    const call = session.begin({ path: '/echo', body: large.subarray(0, windowBytes) }, false)
    await session.sendBody(call, large.subarray(windowBytes), true)
    const { error, body } = await call.answer()
    assert.ok(error === undefined && body.equals(large), `${body.length} bytes`)
  })

  it('method, path, query, headers, request id, protocol and deadline reach the function', async () => {
    await using scope = await start(subject)
    const session = await scope.ready()
    const request = { method: 'PUT', path: '/meta', query: 'a=1&b=%20', headers: META }
    const answer = await session.call({ ...request, deadlineMs: 12_345 })
    assert.equal(
      answer.text.trim(),
      ['PUT', '/meta', 'a=1&b=%20', 'eins', 'text/x-test', 'req-1', 'coap', '12345'].join('\n'),
    )
  })

  it('status and headers of the answer reach the caller', async () => {
    await using scope = await start(subject)
    const session = await scope.ready()
    const answer = await session.call({ path: '/status' })
    assert.deepEqual([answer.status, answer.text], [404, 'nothing here'])
    const at = answer.headers.indexOf('x-one')
    assert.equal(answer.headers[at + 1], 'two')
  })

  it('an id is free for the next call the moment its answer has ended', async () => {
    await using scope = await start(subject)
    const session = await scope.ready({ env: { SWITCH_INTERVAL_S: '0.000001' } })
    // Where calls have threads of their own, threads that never wait come between any two steps of theirs.
    const busy = async (): Promise<void> => {
      for (;;) if ((await session.call({ path: '/block' })).error !== undefined) return
    }
    if (subject.blocks === 'nothing') for (let at = 0; at < 8; at += 1) void busy()
    const rounds = ROUNDS[subject.runtime]
    const readsWhole = READ_WHOLE.has(subject.fixture)
    const again = async (id: number): Promise<void> => {
      for (let round = 0; round < rounds; round += 1) {
        const body = `${id} ${round}`
        // Every third request ends by a frame of its own, behind the answer where that comes at once.
        const split = round % 3 === 2
        const call = session.track(id)
        session.socket.write(encodeRequest(id, { path: split ? '/early' : '/echo', body }, !split))
        if (split && readsWhole) session.send(TYPE.DATA, id, '', true)
        const answer = await call.answer()
        ok({ ...answer, text: answer.text.trim() }, split ? 'early' : body)
        if (split && !readsWhole) session.send(TYPE.DATA, id, '', true)
      }
    }
    const all = Promise.all(
      Array.from({ length: 16 }, async (_, index) => again(index + 1_000_000)),
    )
    const outcome = await Promise.race([all, sleep(30_000, 'too late', { ref: false })])
    assert.notEqual(outcome, 'too late', `${session.inFlight} calls without an answer`)
  })

  it('many calls run at once, also with the highest id', async () => {
    await using scope = await start(subject)
    const session = await scope.ready()
    await session.call({ path: '/sleep' })
    const tookMs: number[] = []
    while (tookMs.length < 5 && !tookMs.some((ms) => ms < 1_500)) {
      const startedAt = performance.now()
      const all = await Promise.all(
        Array.from({ length: 20 }, async () => session.call({ path: '/sleep' })),
      )
      for (const answer of all) ok(answer, 'slept')
      tookMs.push(performance.now() - startedAt)
    }
    // The quickest counts: one behind the other they take 2 s, however quick the machine is.
    assert.ok(Math.min(...tookMs) < 1_500, `20 calls of 100 ms took ${tookMs.join(', ')} ms`)
    const highest = session.track(0xff_ff_ff_ff)
    session.socket.write(encodeRequest(0xff_ff_ff_ff, { path: '/early' }))
    assert.equal((await highest.answer()).text.trim(), 'early')
  })

  it('an answer before the end of the request body ends the call', async () => {
    await using scope = await start(subject)
    const session = await scope.ready()
    const call = session.begin({ path: '/early', body: 'first' }, false)
    // Runtimes that read bodies whole answer when the body is over; the others at once. Both is allowed.
    await Promise.race([call.change, sleep(200)])
    if (!call.done) session.send(TYPE.DATA, call.id, '', true)
    assert.equal((await call.answer()).text.trim(), 'early')
    session.send(TYPE.DATA, call.id, 'late')
    assert.equal((await session.call({ path: '/early' })).text.trim(), 'early')
  })

  it('a streamed answer arrives part by part', async () => {
    await using scope = await start(subject)
    const session = await scope.ready()
    const call = session.begin({ path: '/stream' })
    for (let part = 0; part < 3; part += 1) {
      // The function goes on when it finds this file: what holds a part back holds it for ever.
      await eventually(() => call.bodyBytes === 'part 0\n'.length * (part + 1))
      assert.equal(call.done, false)
      await writeFile(join(scope.dir, `part-${part}-arrived`), '')
    }
    ok(await call.answer(), 'part 0\npart 1\npart 2\n')
  })
}

function failures(subject: Subject): void {
  it('a function that throws: error with its text, and the next call is answered', async () => {
    await using scope = await start(subject)
    const session = await scope.ready()
    const answer = await session.call({ path: '/throw' })
    assert.equal(answer.error?.kind, 0)
    assert.match(answer.error.text, /out of cheese/)
    ok(await session.call({ path: '/echo', body: 'next' }), 'next')
  })

  it('a bad answer is an error of its own kind', async () => {
    await using scope = await start(subject)
    const session = await scope.ready()
    const answer = await session.call({ path: '/bad' })
    assert.equal(answer.error?.kind, 2, answer.error?.text)
    ok(await session.call({ path: '/echo', body: 'next' }), 'next')
  })

  it('an answer that breaks off: error behind what was sent', async () => {
    await using scope = await start(subject)
    const session = await scope.ready()
    const answer = await session.call({ path: '/break' })
    assert.deepEqual([answer.status, answer.error?.kind], [200, 0])
    assert.match(answer.text, /^(?:part)+$/)
    assert.match(answer.error?.text ?? '', /broke off/)
  })

  it('a function that never answers: cancelled in time, again and again', async () => {
    await using scope = await start(subject)
    const session = await scope.ready({ concurrency: 2 })
    for (let round = 0; round < 5; round += 1) {
      const call = session.begin({ path: '/never' })
      await sleep(20)
      const startedAt = performance.now()
      session.cancel(call)
      const answer = await call.answer()
      assert.equal(answer.error?.kind, 3)
      assert.ok(performance.now() - startedAt < 10_000)
    }
    ok(await session.call({ path: '/echo', body: 'next' }), 'next')
  })

  it('one call more than agreed is refused, the others go on', async () => {
    await using scope = await start(subject)
    const session = await scope.ready({ concurrency: 2 })
    const calls = [1, 2, 3].map(async () => session.call({ path: '/sleep' }))
    const [first, second, third] = await Promise.all(calls)
    assert.deepEqual([first?.text, second?.text, third?.error?.kind], ['slept', 'slept', 4])
  })

  it('a function that ends its process is seen at once', async () => {
    await using scope = await start(subject)
    const session = await scope.ready()
    const answer = await session.call({ path: '/exit' })
    if (subject.exit === 'error') {
      assert.equal(answer.error?.kind, 0)
      assert.match(answer.error.text, /signal 9/)
      ok(await session.call({ path: '/echo', body: 'next' }), 'next')
    } else {
      assert.equal(answer.error?.text, 'connection closed')
      assert.equal(await scope.exited, 3)
    }
  })

  it('a function that blocks: pings tell whether the runner can still take calls', async () => {
    await using scope = await start(subject)
    const session = await scope.ready()
    const blocked: boolean[] = []
    // A machine that stands still for longer than the function blocks shows nothing: then once more.
    while (blocked.length < 5 && blocked.at(-1) !== (subject.blocks === 'loop')) {
      const call = session.begin({ path: '/block' })
      await sleep(50)
      assert.equal((await session.ping()).toString(), 'ping')
      blocked.push(call.done)
      ok(await call.answer(), 'unblocked')
    }
    assert.equal(blocked.at(-1), subject.blocks === 'loop')
  })

  it('a function that cannot be loaded: the reason arrives, and the runner waits for its end', async () => {
    await using scope = await start(subject, { fn: { 'README.md': 'no function' } })
    const session = await scope.listener.session()
    const entry = subject.runtime === 'binary' ? 'missing' : undefined
    const ready = await session.init({ dir: scope.dir, ...(entry === undefined ? {} : { entry }) })
    assert.equal(ready['ok'], false)
    assert.match(String(ready['error']), /no function found|is not a file/)
    assert.equal((await session.ping()).toString(), 'ping')
    session.send(TYPE.SHUTDOWN, 0)
    assert.equal(await scope.exited, 0)
  })
}

function floods(subject: Subject): void {
  it('endless output stops at the window, in bounded memory, and can be cancelled', async () => {
    await using scope = await start(subject)
    const session = await scope.ready()
    session.autoGrant = false
    const call = session.begin({ path: '/flood' })
    await eventually(() => call.bodyBytes >= 196_608)
    await sleep(200)
    assert.ok(call.bodyBytes <= session.windowBytes, `${call.bodyBytes} bytes without a grant`)
    assert.ok((await scope.residentMiB()) < 250)
    session.grant(call, 100_000)
    await eventually(() => call.bodyBytes > 200_000)
    assert.ok(call.bodyBytes <= session.windowBytes + 100_000)
    ok(await session.call({ path: '/echo', body: 'beside' }), 'beside')
    session.cancel(call, 2)
    assert.equal((await call.answer()).error?.kind, 3)
    ok(await session.call({ path: '/echo', body: 'next' }), 'next')
  })

  it('log lines carry call, level and text; an unfinished line comes with the end', async () => {
    await using scope = await start(subject)
    const session = await scope.ready()
    const call = session.begin({ path: '/log' })
    ok(await call.answer(), 'ok')
    const own = session.logs.filter(({ id }) => id === call.id)
    const expected = [
      ...(subject.stdoutIsBody === true ? [] : [{ id: call.id, level: 1, text: 'to stdout' }]),
      { id: call.id, level: 3, text: 'to stderr' },
      { id: call.id, level: 3, text: 'no line feed' },
    ]
    assert.deepEqual(own, expected)
  })

  if (subject.stdoutIsBody !== true) {
    it('what is written behind the answer is no line of a call: its id may be that of another by now', async () => {
      await using scope = await start(subject)
      const session = await scope.ready()
      ok(await session.call({ path: '/log-late' }), 'ok')
      await session.log(({ text }) => text === 'later')
      const lines = session.logs.filter(({ text }) => text.startsWith('late'))
      assert.deepEqual(lines, [
        { id: 0, level: 1, text: 'late' },
        { id: 0, level: 1, text: 'later' },
      ])
    })
  }

  it('a flood of log lines to an agent that does not read drops the oldest and says so', async () => {
    await using scope = await start(subject)
    const session = await scope.ready()
    const usedMs = () => cpuMsOf(scope.child.pid ?? 0)
    const beforeMs = subject.runtime === 'binary' ? -1 : usedMs()
    const call = session.begin({ path: '/flood-log' })
    session.socket.pause()
    await sleep(1_000)
    // All has been written. The second is for the program of a call, whose time is not the runner's.
    await eventually(async () => usedMs() > beforeMs && (await sleep(200, usedMs())) === usedMs())
    assert.ok((await scope.residentMiB()) < 250)
    session.socket.resume()
    ok(await call.answer(), 'ok')
    const dropped = await session.log(({ text }) => /^\[\d+ log lines dropped\]$/.test(text))
    assert.equal(dropped.level, 2)
    ok(await session.call({ path: '/echo', body: 'next' }), 'next')
  })

  it('a function that takes memory without end comes to its own end, with an outcome for the caller', async () => {
    const limit =
      subject.runtime === 'python3' ? { before: ['prlimit', '--as=400000000', '--'] } : {}
    const flags = subject.runtime === 'nodejs' ? { flags: ['--max-old-space-size=64'] } : {}
    await using scope = await start(subject, { ...limit, ...flags })
    const session = await scope.ready()
    const answer = await session.call({ path: '/hog' })
    assert.ok(answer.error !== undefined && [-1, 0].includes(answer.error.kind))
    // Where the process survived, the next call is answered.
    if (answer.error.kind === 0) ok(await session.call({ path: '/echo', body: 'next' }), 'next')
    else assert.notEqual(await scope.exited, 0)
  })
}

function life(subject: Subject): void {
  it('outlives its connection: comes back with the function loaded', async () => {
    await using scope = await start(subject)
    const first = await scope.ready({ fn: 'site/thermo' })
    first.begin({ path: '/never' })
    ok(await first.call({ path: '/echo', body: 'one' }), 'one')
    first.socket.destroy()
    const second = await scope.listener.session()
    const hello = await second.hello()
    assert.deepEqual(
      [hello['state'], hello['fn'], hello['release'], hello['pid']],
      ['ready', 'site/thermo', 'r1-test', scope.child.pid],
    )
    second.welcome()
    assert.deepEqual(await second.readyMessage(), { ok: true })
    ok(await second.call({ path: '/echo', body: 'two' }), 'two')
    // The call of the first connection is over: its place is free, and nothing of it comes here.
    assert.equal(second.inFlight, 0)
  })

  it('shutdown lets calls in flight end, refuses new ones, exits with 0', async () => {
    await using scope = await start(subject)
    const session = await scope.ready()
    const call = session.begin({ path: '/sleep' })
    session.send(TYPE.SHUTDOWN, 0)
    assert.equal((await session.call({ path: '/echo' })).error?.kind, 1)
    ok(await call.answer(), 'slept')
    assert.equal(await scope.exited, 0)
  })

  it('SIGTERM ends it like a shutdown', async () => {
    await using scope = await start(subject)
    const session = await scope.ready()
    const call = session.begin({ path: '/sleep' })
    // Frames are read in order: the call has begun.
    await session.ping()
    scope.child.kill('SIGTERM')
    ok(await call.answer(), 'slept')
    assert.equal(await scope.exited, 0)
  })

  it('an agent that shares no version is told apart: exit status 69', async () => {
    await using scope = await start(subject)
    const session = await scope.listener.session()
    await session.hello()
    session.welcome({ protocol: 0, error: 'this agent speaks versions 2 to 3' })
    assert.equal(await scope.exited, 69)
  })
}
