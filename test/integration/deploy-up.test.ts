import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, readdirSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { Fault } from '#shared/fault.ts'
import { eventually } from '#test/eventually.ts'
import { freePort } from '#test/ports.ts'
import { childScope } from '#test/process.ts'
import { hasEnded } from '#test/process-facts.ts'
import { tempFolder } from '#test/temp.ts'
import { loadDeployConfig } from '../../deploy/config.ts'
import { checkPorts } from '../../deploy/ports.ts'
import { lockFolder } from '../../deploy/up/lock.ts'
import { LogFile } from '../../deploy/up/log-file.ts'
import { Part, type PartSpec } from '../../deploy/up/part.ts'

const ROOT = join(import.meta.dirname, '../..')

describe('the lock of a data folder', () => {
  it('refuses a second owner, names the first, and is free again afterwards', async () => {
    await using folder = await tempFolder()
    {
      using lock = lockFolder(folder.path)
      lock.note('nobody', undefined)
      const second = `import { lockFolder } from '#deploy/up/lock.ts'; lockFolder('${folder.path}')`
      await assert.rejects(
        runScript(second),
        new RegExp(`CONFLICT|already runs.*process ${process.pid}`),
      )
    }
    using again = lockFolder(folder.path)
    assert.deepEqual(await again.endLeftovers(AbortSignal.timeout(1_000)), [])
  })

  it('is taken over from an owner that was killed, and its children are ended', async () => {
    await using folder = await tempFolder()
    const orphan = spawn('sleep', ['600'], { detached: true, stdio: 'ignore' })
    const script = `
      import { lockFolder } from '#deploy/up/lock.ts'
      lockFolder('${folder.path}').note('sleeper', ${orphan.pid})
      console.log('locked'); setInterval(() => {}, 1000)`
    await using owner = await childScope({
      args: ['--input-type=module', '-e', script],
      cwd: ROOT,
      ready: (line) => line === 'locked',
    })
    assert.throws(
      () => lockFolder(folder.path),
      (error: unknown) =>
        Fault.is(error, 'CONFLICT') && error.message.includes(`process ${owner.pid}`),
    )
    await owner.kill()
    using lock = lockFolder(folder.path)
    const gone = once(orphan, 'exit')
    assert.deepEqual(await lock.endLeftovers(AbortSignal.timeout(60_000)), ['sleeper'])
    await gone
  })
})

describe('the log of a part', () => {
  it('never grows beyond its bounds, and keeps the newest lines', async () => {
    await using folder = await tempFolder()
    const path = folder.join('log/part.log')
    const log = new LogFile({ path, bytesMax: 1_000, kept: 2 })
    for (let n = 0; n < 500; n += 1) log.write(`line ${n}`)
    log.close()
    assert.deepEqual(readdirSync(folder.join('log')).toSorted(), [
      'part.log',
      'part.log.1',
      'part.log.2',
    ])
    for (const file of readdirSync(folder.join('log'))) {
      assert.ok(readFileSync(folder.join('log', file)).length <= 1_000, file)
    }
    assert.match(readFileSync(path, 'utf8'), /line 499\n$/)
  })
})

describe('a part', () => {
  it('is started again when it dies, and stops when told', async (t) => {
    await using folder = await tempFolder()
    const { spec, news, pids } = partSpec(
      folder.path,
      "console.log('up'); setInterval(() => {}, 1000)",
    )
    const part = await Part.start(spec, t.signal)
    const first = part.pid ?? -1
    process.kill(first, 'SIGKILL')
    await eventually(() => news.some((text) => text.includes('serves again')))
    assert.notEqual(part.pid, first)
    assert.match(news[0] ?? '', /tested ended \(SIGKILL\)/)
    assert.equal(await part.stop(5_000), true)
    assert.equal(pids.at(-1), undefined)
    assert.throws(() => process.kill(pids.at(-2) ?? -1, 0), { code: 'ESRCH' })
  })

  it('that never serves fails its start with its own words', async (t) => {
    await using folder = await tempFolder()
    const { spec } = partSpec(
      folder.path,
      "console.error('port 80 is not for you'); process.exit(4)",
    )
    await assert.rejects(Part.start(spec, t.signal), /exit code 4[^]*port 80 is not for you/)
  })

  it('that ignores SIGTERM is killed when its time is over', async (t) => {
    await using folder = await tempFolder()
    const script = "process.on('SIGTERM', () => {}); console.log('up'); setInterval(() => {}, 1000)"
    const { spec } = partSpec(folder.path, script)
    const part = await Part.start(spec, t.signal)
    assert.equal(await part.stop(100), false)
  })

  it('ends with its supervisor, even when that is killed by force', async () => {
    await using folder = await tempFolder()
    const script = `
      import { LogFile } from '#deploy/up/log-file.ts'
      import { Part } from '#deploy/up/part.ts'
      const part = await Part.start({
        name: 'tested', command: 'sh', args: ['-c', 'echo up; exec sleep 600'], env: () => process.env,
        ready: () => true, readyTimeoutMs: 5000, log: new LogFile({ path: '${folder.join('log')}' }),
        onPid() {}, onNews() {},
      }, new AbortController().signal)
      console.log('pid ' + part.pid)`
    await using supervisor = await childScope({
      args: ['--input-type=module', '-e', script],
      cwd: ROOT,
      ready: (line) => line.startsWith('pid '),
    })
    const pid = Number(supervisor.readyLine.slice(4))
    assert.ok(!hasEnded(pid))
    await supervisor.kill('SIGKILL')
    await eventually(() => hasEnded(pid))
  })
})

it('a taken port is named with the setting that moves it', async () => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' ? address?.port : undefined
  const ports = Object.fromEntries(
    await Promise.all(
      ['HTTP', 'GRPC', 'ADMIN', 'API', 'NATS'].map(async (name) => [
        `SHOAL_${name}_PORT`,
        String(await freePort()),
      ]),
    ),
  )
  const env = { ...ports, SHOAL_COAP_PORT: String(await freePort('udp')) }
  await checkPorts(loadDeployConfig(env))
  await assert.rejects(
    checkPorts(loadDeployConfig({ ...env, SHOAL_GRPC_PORT: String(port) })),
    (error: unknown) =>
      Fault.is(error, 'PORT_TAKEN') &&
      error.message.includes(`${port}/tcp is taken; another one: SHOAL_GRPC_PORT`),
  )
  server.close()
})

function partSpec(folder: string, script: string) {
  const news: string[] = []
  const pids: (number | undefined)[] = []
  const spec: PartSpec = {
    name: 'tested',
    command: process.execPath,
    args: ['-e', script],
    env: () => process.env,
    ready: (line) => line === 'up',
    readyTimeoutMs: 10_000,
    log: new LogFile({ path: join(folder, 'tested.log') }),
    onPid: (pid) => pids.push(pid),
    onNews: (text) => news.push(text),
  }
  return { spec, news, pids }
}

async function runScript(script: string): Promise<void> {
  await using child = await childScope({
    args: ['--input-type=module', '-e', script],
    cwd: ROOT,
    ready: () => false,
  })
  await child.exited
}
