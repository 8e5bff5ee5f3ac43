import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { it } from 'node:test'
import { Value } from 'typebox/value'
import { LIMITS } from '#shared/limits.ts'
import { ApiError } from '#shared/schemas/api.ts'
import { controllerScope, type ControllerScope } from '#test/controller-scope.ts'
import { deploy, signal } from '#test/deploy.ts'
import { eventually } from '#test/eventually.ts'
import { tarOf } from '#test/source.ts'

const TAR = { 'content-type': 'application/x-tar' }

async function upload(
  controller: ControllerScope,
  fn: string,
  body: string | Uint8Array<ArrayBuffer> | ReadableStream,
  abort?: AbortSignal,
): Promise<Response> {
  return controller.fetch(`/v1/functions/${fn}/releases`, {
    method: 'POST',
    headers: TAR,
    body,
    ...(abort === undefined ? {} : { signal: abort }),
  })
}

async function errorCode(response: Response, status: number): Promise<string> {
  const text = await response.text()
  assert.equal(response.status, status, text)
  return Value.Parse(ApiError, JSON.parse(text)).code
}

/** A body that begins well and then says nothing until it is cancelled. */
const silence = () =>
  new ReadableStream({
    start: (stream) => stream.enqueue(tarHeader('index.js', 1024)),
    pull: () => new Promise(() => undefined),
  })

it('a source that is none is answered with 400, and changes nothing', async () => {
  await using controller = await controllerScope({ nats: false })
  const broken = await upload(controller, 'sieve', 'this is no archive')
  assert.equal(await errorCode(broken, 400), 'BUNDLE_INVALID')
  // Whole, but nothing in it is a function.
  const body = new Uint8Array(await tarOf({ 'readme.txt': 'hello' }))
  const without = await upload(controller, 'sieve', body)
  assert.equal(await errorCode(without, 400), 'RUNTIME_UNKNOWN')
  assert.deepEqual(await controller.api.functions(signal()), [])
})

it('a source that says it is too large is refused at once', async () => {
  await using controller = await controllerScope({ nats: false })
  const response = await upload(controller, 'sieve', new Uint8Array(LIMITS.sourceBytesMax + 1))
  assert.equal(response.status, 413)
  assert.equal(Value.Parse(ApiError, await response.json()).code, 'BODY_TOO_LARGE')
})

it('a source that does not say how large it is is cut off at the limit', async () => {
  await using controller = await controllerScope({ nats: false })
  const chunk = new Uint8Array(1024 * 1024)
  // A tar entry's header that promises more than is allowed.
  let sent = 0
  const body = new ReadableStream({
    pull(stream) {
      stream.enqueue(sent === 0 ? tarHeader('big', 10 * LIMITS.sourceBytesMax) : chunk)
      sent += 1
      if (sent > 400) stream.close()
    },
  })
  const response = await upload(controller, 'sieve', body)
  assert.equal(await errorCode(response, 413), 'BODY_TOO_LARGE')
  assert.ok(sent < 300, `${sent} MiB were taken`)
})

it('two deployments of one function wait for each other; another function does not wait', async () => {
  await using controller = await controllerScope({ nats: false })
  const stop = new AbortController()
  const hanging = upload(controller, 'sieve', silence(), stop.signal).catch(() => undefined)
  // Its build has begun: there is a folder for its work.
  const work = join(controller.folder, 'controller/build/tmp')
  await eventually(async () => (await readdir(work)).length === 1)
  let ended = false
  const waiting = deploy(controller, 'sieve', 2).finally(() => {
    ended = true
  })
  await deploy(controller, 'echo', 1)
  assert.equal(ended, false, 'the second waits for the first')
  // The caller of the first goes away: its build ends, and the line moves on.
  stop.abort()
  await hanging
  assert.equal((await waiting).release.number, 1)
  const both = await Promise.all([deploy(controller, 'sieve', 3), deploy(controller, 'sieve', 4)])
  assert.deepEqual(
    both.map(({ release }) => release.number).toSorted((a, b) => a - b),
    [2, 3],
  )
})

it('a line of waiting deployments that is too long is refused with CONFLICT', async () => {
  await using controller = await controllerScope({ nats: false })
  const stop = new AbortController()
  const answers: string[] = []
  const waiting = Array.from({ length: 6 }, async () => {
    const response = await upload(controller, 'sieve', silence(), stop.signal)
    answers.push(await errorCode(response, 409))
  }).map((work) => work.catch(() => undefined))
  await eventually(() => answers.some((line) => line === 'CONFLICT'))
  stop.abort()
  await Promise.all(waiting)
  assert.equal(answers.length, 1, 'only the one too many')
})

/** A ustar header of a file with this size. */
function tarHeader(name: string, bytes: number): Uint8Array {
  const header = Buffer.alloc(512)
  header.write(name, 0)
  header.write('0000644\0', 100)
  header.write('0000000\0', 108)
  header.write('0000000\0', 116)
  header.write(`${bytes.toString(8).padStart(11, '0')}\0`, 124)
  header.write('00000000000\0', 136)
  header.write('        ', 148)
  header.write('0', 156)
  header.write('ustar\u000000', 257)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return header
}
