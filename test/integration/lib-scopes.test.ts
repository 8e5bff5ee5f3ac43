import assert from 'node:assert/strict'
import { access, readFile } from 'node:fs/promises'
import { createConnection, createServer } from 'node:net'
import { once } from 'node:events'
import { it } from 'node:test'
import { connect } from '@nats-io/transport-node'
import { TEST_LABEL, dockerScope } from '#test/docker.ts'
import { eventually } from '#test/eventually.ts'
import { natsScope } from '#test/nats.ts'
import { freePort } from '#test/ports.ts'
import { childScope } from '#test/process.ts'
import { tempFolder } from '#test/temp.ts'

it('a docker scope removes what carries its label, and nothing of another scope', async () => {
  await using other = dockerScope()
  const kept = await other.emptyImage()
  let image = ''
  let container = ''
  {
    await using scope = dockerScope()
    image = await scope.emptyImage()
    const made = await scope.docker.createContainer({
      Image: image,
      Cmd: ['/marker'],
      Labels: scope.labels,
    })
    container = made.id
    await scope.docker.createNetwork({ Name: scope.run, Labels: scope.labels })
  }
  await assert.rejects(other.docker.getContainer(container).inspect(), { statusCode: 404 })
  await assert.rejects(other.docker.getImage(image).inspect(), { statusCode: 404 })
  const found = await other.docker.getImage(kept).inspect()
  assert.equal(found.Config.Labels?.[TEST_LABEL], other.run)
})

it('a nats scope survives a kill on the same port and is gone after its end', async () => {
  let port = 0
  {
    await using nats = await natsScope()
    port = nats.port
    const first = await connect({ servers: nats.url })
    await first.close()
    await nats.kill()
    await nats.start()
    const second = await connect({ servers: nats.url })
    await second.close()
  }
  const socket = createConnection(port, '127.0.0.1')
  const [error] = await once(socket, 'error').catch((refused: unknown) => [refused])
  assert.match(String(error), /ECONNREFUSED/)
})

it('a child that ends before it is ready fails with its own words', async () => {
  const script = "console.log('port 1 is taken'); process.exit(3)"
  await assert.rejects(childScope({ args: ['-e', script] }), /exit code 3[^]*port 1 is taken/)
})

it('a child is killed at the end of its scope, and its lines can be waited for', async () => {
  let pid = 0
  {
    const script = `console.log('{"msg":"ready"}'); setTimeout(() => console.log('later'), 20); setInterval(() => {}, 1000)`
    await using child = await childScope({ args: ['-e', script] })
    pid = child.pid
    assert.equal(await child.line((line) => line === 'later'), 'later')
  }
  assert.throws(() => process.kill(pid, 0), { code: 'ESRCH' })
})

const never = (): never => {
  throw new Error('not yet there')
}

it('temp folders vanish, and eventually() tells the last error', async () => {
  let path = ''
  {
    await using folder = await tempFolder()
    path = folder.path
    await access(path)
  }
  await assert.rejects(access(path), { code: 'ENOENT' })
  await assert.rejects(eventually(never, { timeoutMs: 30, everyMs: 5 }), /30 ms.*not yet there/s)
})

it('a free port is one that the kernel gives to nobody, and that no other process of the tests is given', async () => {
  const port = await freePort()
  const server = createServer().listen(port, '127.0.0.1')
  await once(server, 'listening')
  server.close()
  const range = await readFile('/proc/sys/net/ipv4/ip_local_port_range', 'utf8')
  const [low = 0, high = 0] = range.split(/\s+/).map(Number)
  // Where the kernel gives away nearly all ports, there is no such one.
  const isLeft = low - 10_240 >= 1_000 || 65_535 - high >= 1_000
  for (const free of [port, await freePort('udp')]) {
    assert.ok(!isLeft || free < low || free > high, `${free} is from ${low} to ${high}`)
  }
  const held = createServer().listen(`\0shoal-test-tcp-${port}`)
  await assert.rejects(once(held, 'listening'), { code: 'EADDRINUSE' })
})
