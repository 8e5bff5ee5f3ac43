import assert from 'node:assert/strict'
import { chmod, readFile, rm } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { eventually } from '#test/eventually.ts'
import { processesWhere } from '#test/process-facts.ts'
import { TYPE } from '#test/runner-client.ts'
import { RunnerScope } from '#test/runner-scope.ts'

/** What calls of one runner have left, by an entry of their environment. */
const processesWith = async (entry: string): Promise<readonly number[]> =>
  processesWhere((environment) => environment.includes(entry))

const script = (text: string): Readonly<Record<string, string>> => ({
  'fn.sh': `#!/bin/sh\n${text}\n`,
})

describe('runner binary: programs', { timeout: 60_000 }, () => {
  it('cancel ends the program and all that it has forked, also what has left its session', async () => {
    await using scope = await RunnerScope.start({ runtime: 'binary', fn: 'binary' })
    const session = await scope.ready({ env: { MARK: scope.dir } })
    const call = session.begin({ path: '/fork' })
    await eventually(async () => (await processesWith(`MARK=${scope.dir}`)).length >= 5)
    const startedAt = performance.now()
    session.cancel(call)
    assert.equal((await call.answer()).error?.kind, 3)
    assert.ok(performance.now() - startedAt < 10_000)
    assert.deepEqual(await processesWith(`MARK=${scope.dir}`), [])
  })

  it('what a program leaves running ends with its call, and does not hold up the answer', async () => {
    await using scope = await RunnerScope.start({ runtime: 'binary', fn: 'binary' })
    const session = await scope.ready({ env: { MARK: scope.dir } })
    const startedAt = performance.now()
    assert.equal((await session.call({ path: '/leave' })).text, 'left')
    assert.ok(performance.now() - startedAt < 5_000)
    await eventually(async () => (await processesWith(`MARK=${scope.dir}`)).length === 0)
  })

  it('when the runner dies its programs die as well', async () => {
    const fn = script('exec sleep 1000')
    await using scope = await RunnerScope.start({ runtime: 'binary', fn })
    const session = await scope.ready({ env: { MARK: scope.dir } })
    session.begin()
    await eventually(async () => (await processesWith(`MARK=${scope.dir}`)).length === 1)
    scope.child.kill('SIGKILL')
    await eventually(async () => (await processesWith(`MARK=${scope.dir}`)).length === 0)
  })

  it('leaves no zombies', async () => {
    await using scope = await RunnerScope.start({
      runtime: 'binary',
      fn: script('(true &)\ntrue &\necho ok'),
    })
    const session = await scope.ready()
    for (let round = 0; round < 20; round += 1) await session.call()
    await eventually(async () => {
      const task = `/proc/${scope.child.pid}/task/${scope.child.pid}/children`
      return (await readFile(task, 'utf8')).trim() === ''
    })
  })

  it('an error carries the exit status and the end of stderr, and what was printed is not sent', async () => {
    const fn = script('echo half; seq 1 5000 >&2; exit 9')
    await using scope = await RunnerScope.start({ runtime: 'binary', fn })
    const session = await scope.ready()
    const { error, status } = await session.call()
    assert.equal(status, 0)
    assert.match(error?.text ?? '', /^exit status 9: 5000\n[\s\S]*4999\n5000$/)
    assert.ok((error?.text.length ?? 0) < 4_200)
  })

  it('the only executable is the function; without a shebang it is a script of sh', async () => {
    await using scope = await RunnerScope.start({
      runtime: 'binary',
      fn: { work: 'printf "%s" "$1works"' },
    })
    const session = await scope.ready()
    assert.equal((await session.call()).text, 'works')
  })

  it('status and headers said before more output than is held back are not missed', async () => {
    const fn = script('printf "Status: 201\\nX-A: b\\n" >&3; exec head -c 200000 /dev/zero')
    await using scope = await RunnerScope.start({ runtime: 'binary', fn })
    const session = await scope.ready()
    const all = await Promise.all(Array.from({ length: 20 }, async () => session.call()))
    for (const { status, headers, body } of all) {
      assert.deepEqual([status, headers, body.length], [201, ['x-a', 'b'], 200_000])
    }
  })

  it('a program whose answer is refused for its head ends, however much it still has to say', async () => {
    const fn = script('echo "no header" >&3; head -c 400000 /dev/zero; exec sleep 1000')
    await using scope = await RunnerScope.start({ runtime: 'binary', fn })
    const session = await scope.ready({ env: { MARK: scope.dir } })
    const calls = await Promise.all(Array.from({ length: 3 }, async () => session.call()))
    for (const { error } of calls) assert.equal(error?.kind, 2, error?.text)
    await eventually(async () => (await processesWith(`MARK=${scope.dir}`)).length === 0)
  })

  it('a program that answers without reading what still comes leaves nothing in memory', async () => {
    const fn = script('exec 0<&-; printf no')
    await using scope = await RunnerScope.start({ runtime: 'binary', fn })
    const session = await scope.ready()
    const half = 'x'.repeat(60_000)
    const someCalls = async (): Promise<number> => {
      for (let at = 0; at < 200; at += 1) {
        const call = session.begin({ body: half }, false)
        assert.equal((await call.answer()).text, 'no')
        session.send(TYPE.DATA, call.id, '', true)
      }
      return scope.residentMiB()
    }
    const before = await someCalls()
    const after = await someCalls()
    assert.ok(after - before < 8, `${before} to ${after} MiB`)
  })

  it('two executables and no fn.sh: the error names them', async () => {
    await using scope = await RunnerScope.start({
      runtime: 'binary',
      fn: { a: '#!/bin/sh', b: '#!/bin/sh' },
    })
    const session = await scope.listener.session()
    const ready = await session.init({ dir: scope.dir })
    assert.match(String(ready['error']), /a, b are executable/)
  })

  it('long programs do not keep others from being started', async () => {
    const fn = script('[ "$SHOAL_PATH" = /long ] && exec sleep 1000\nprintf quick')
    await using scope = await RunnerScope.start({
      runtime: 'binary',
      fn,
      env: { SHOAL_STARTS_MAX: '1' },
    })
    const session = await scope.ready()
    for (let at = 0; at < 5; at += 1) session.begin({ path: '/long' })
    await sleep(50)
    assert.equal((await session.call({ path: '/quick' })).text, 'quick')
  })

  it('a program that cannot be started is an error that says why, and the runner goes on', async () => {
    await using scope = await RunnerScope.start({ runtime: 'binary', fn: script('printf ok') })
    const session = await scope.ready()
    const file = `${scope.dir}/fn.sh`
    await chmod(file, 0o644)
    const { error } = await session.call()
    assert.deepEqual(error, { kind: 0, text: 'cannot start the program: permission denied' })
    await chmod(file, 0o755)
    assert.equal((await session.call()).text, 'ok')
    await rm(file)
    assert.match((await session.call()).error?.text ?? '', /cannot start the program: no such file/)
  })

  it('its programs begin with no signal blocked or ignored', async () => {
    const fn = script('exec cat /proc/self/status')
    await using scope = await RunnerScope.start({ runtime: 'binary', fn })
    const session = await scope.ready()
    const { text } = await session.call()
    const masks = text.split('\n').filter((line) => /^Sig(?:Blk|Ign|Cgt)/.test(line))
    assert.equal(masks.length, 3, text)
    for (const mask of masks) assert.match(mask, /^Sig...:\t0{16}$/)
  })

  it('nothing of the runner is seen by the program but what is meant for it', async () => {
    await using scope = await RunnerScope.start({
      runtime: 'binary',
      fn: script('env; ls -l /proc/self/fd'),
    })
    const session = await scope.ready({ env: { OWN: '1' } })
    const { text } = await session.call({ headers: ['x-a', 'b'] })
    assert.match(text, /^SHOAL_HEADER_X_A=b$/m)
    assert.match(text, /^OWN=1$/m)
    assert.doesNotMatch(text, /SHOAL_SOCKET|SHOAL_HANDLER=/)
    assert.match(text, / 3 -> pipe:/)
    assert.doesNotMatch(text, /socket:/)
  })
})
