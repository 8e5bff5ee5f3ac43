import assert from 'node:assert/strict'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { once } from 'node:events'
import { join } from 'node:path'
import { it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Value } from 'typebox/value'
import { WebSocket } from 'ws'
import { ApiError, ControllerEvent } from '#shared/schemas/api.ts'
import { controllerScope } from '#test/controller-scope.ts'
import { deploy, joinNode, roll, signal } from '#test/deploy.ts'
import { eventually } from '#test/eventually.ts'
import { childScope } from '#test/process.ts'
import { tempFolder } from '#test/temp.ts'

const SCRIPT = join(import.meta.dirname, '../../controller/main.ts')

it('starts without NATS, says so, and connects when it comes', async () => {
  await using controller = await controllerScope({ nats: false })
  const ready = await fetch(`${controller.url}/readyz`)
  assert.equal(ready.status, 503)
  assert.deepEqual(await ready.json(), { ready: false, problems: ['no connection to NATS'] })
  assert.equal((await fetch(`${controller.url}/healthz`)).status, 200)
  await deploy(controller, 'sieve', 1)
  const call = await controller.fetch('/v1/functions/sieve/invoke')
  assert.equal(call.status, 503)
  assert.equal(Value.Parse(ApiError, await call.json()).code, 'NODE_OFFLINE')
  const nats = await controller.startNats()
  await eventually(async () => (await fetch(`${controller.url}/readyz`)).status === 200)
  // Lost and found again, without a hand.
  await nats.kill()
  await eventually(async () => (await fetch(`${controller.url}/readyz`)).status === 503)
  await nats.start()
  await eventually(async () => (await fetch(`${controller.url}/readyz`)).status === 200)
  await using node = await joinNode(controller, { name: 'edge-1' })
  assert.equal((await roll(controller, 'sieve')).state, 'done')
  assert.equal(node.kept.length, 1)
})

it('leaves its address in the data folder, for the command line', async () => {
  await using controller = await controllerScope({ nats: false })
  const noted: unknown = JSON.parse(
    await readFile(join(controller.folder, 'controller/address.json'), 'utf8'),
  )
  assert.deepEqual(noted, {
    api: controller.url,
    nats: [`nats://127.0.0.1:${controller.natsPort}`],
  })
})

it('nodes get what they missed when NATS was away', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1' })
  await deploy(controller, 'sieve', 1)
  await controller.nats?.kill()
  await eventually(async () => (await fetch(`${controller.url}/readyz`)).status === 503)
  const { id } = await controller.api.createRollout({ function: 'sieve' }, signal())
  await controller.nats?.start()
  await eventually(() => node.kept.length === 1, { timeoutMs: 60_000 })
  await eventually(async () => (await controller.api.rollout(id, signal())).state === 'done')
})

it('a second controller on the same folder is refused before it touches anything', async () => {
  await using controller = await controllerScope()
  const upload = join(controller.folder, 'controller/artifacts/tmp/under-way')
  await writeFile(upload, 'x')
  await assert.rejects(
    childScope({ script: SCRIPT, env: { SHOAL_DATA: controller.folder, SHOAL_API_PORT: '0' } }),
    /another controller runs on .*SHOAL_CONTROLLER_DATA/,
  )
  assert.ok(await stat(upload))
})

it('a port that is taken is named with the setting that changes it', async () => {
  await using folder = await tempFolder()
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  try {
    const address = server.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    await assert.rejects(
      childScope({
        script: SCRIPT,
        env: { SHOAL_DATA: folder.path, SHOAL_API_PORT: String(port) },
      }),
      (error: Error) =>
        error.message.includes(`127.0.0.1:${port} is taken: set SHOAL_API_PORT`) &&
        error.message.includes('exit code 1'),
    )
  } finally {
    server.close()
  }
})

it('keys, token and database are for their owner only', async () => {
  await using controller = await controllerScope({ nats: false })
  for (const name of ['api-token', 'shoal.db', 'keys/root.json', 'nats/authority.json']) {
    const { mode } = await stat(join(controller.folder, 'controller', name))
    assert.equal((mode & 0o777).toString(8), '600', name)
  }
})

it('SIGTERM ends it within 10 s with exit code 0, whatever is open', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1' })
  await deploy(controller, 'sieve', 1)
  node.react = () => ({ state: 'starting', serving: [] })
  const { id } = await controller.api.createRollout({ function: 'sieve' }, signal())
  await eventually(() => node.kept.length === 1)
  // A watch that would never end, a follower, an upload that never comes, a socket that says nothing.
  const watch = await controller.fetch(`/v1/rollouts/${id}/watch`)
  const follow = await controller.fetch('/v1/functions/sieve/logs?follow=1&tail=0')
  assert.deepEqual([watch.status, follow.status], [200, 200])
  const events = new WebSocket(`${controller.url}/v1/events`, {
    headers: { authorization: `Bearer ${controller.token}` },
  })
  await once(events, 'open')
  const upload = new AbortController()
  const endless = controller
    .fetch('/v1/functions/other/releases', {
      method: 'POST',
      headers: { 'content-type': 'application/x-tar' },
      body: new ReadableStream({
        start: (stream) => stream.enqueue(new Uint8Array(512)),
        pull: () => new Promise(() => undefined),
      }),
      signal: upload.signal,
    })
    .catch(() => undefined)
  await sleep(200)
  const startedMs = performance.now()
  const exit = await controller.kill('SIGTERM')
  const tookMs = performance.now() - startedMs
  assert.deepEqual(exit, { code: 0, signal: null }, controller.output())
  assert.ok(tookMs < 10_000, `took ${tookMs} ms`)
  upload.abort()
  await endless
  await Promise.allSettled([watch.text(), follow.text()])
})

it('events reach whoever listens, with the token by header or by query', async () => {
  await using controller = await controllerScope()
  const url = `${controller.url.replace('http', 'ws')}/v1/events`
  for (const wrong of [url, `${url}?token=wrong`]) {
    const refused = new WebSocket(wrong)
    const [error] = await once(refused, 'error')
    assert.match(String(error), /401/)
  }
  const seen: ControllerEvent[] = []
  const socket = new WebSocket(`${url}?token=${controller.token}`)
  await once(socket, 'open')
  socket.on('message', (data: Buffer) =>
    seen.push(Value.Parse(ControllerEvent, JSON.parse(data.toString()))),
  )
  await using node = await joinNode(controller, { name: 'edge-1' })
  await deploy(controller, 'sieve', 1)
  const { id } = await roll(controller, 'sieve')
  await controller.api.removeFunction('sieve', signal())
  await node.disconnect()
  await controller.api.removeNode('edge-1', signal())
  await eventually(() => seen.some(({ type }) => type === 'node-deleted'))
  socket.terminate()
  const rollouts = seen.flatMap((event) => (event.type === 'rollout' ? [event.rollout] : []))
  assert.ok(rollouts.every((rollout) => rollout.id === id))
  assert.deepEqual([rollouts[0]?.state, rollouts.at(-1)?.state], ['rolling', 'done'])
  assert.deepEqual(
    seen.flatMap((event) => (event.type === 'function' ? [event.change] : [])),
    ['release', 'deleted'],
  )
  assert.ok(seen.some((event) => event.type === 'node' && event.node.online))
})

it('metrics name requests by route and count what happens', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1' })
  await deploy(controller, 'sieve', 1)
  await roll(controller, 'sieve')
  const text = await (await controller.fetch('/metrics')).text()
  assert.match(text, /^shoal_controller_nodes_online_count 1$/m)
  assert.match(text, /^shoal_controller_commands_accepted_total [1-9]/m)
  assert.match(text, /route="\/v1\/functions\/:name\/releases"/)
  assert.equal(text.includes('sieve'), false, 'names are no labels')
  assert.equal(node.kept.length, 1)
})
