import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { it } from 'node:test'
import Docker from 'dockerode'
import { startDockerd } from '#deploy/bootstrap/index.ts'
import { curl } from '#test/clients.ts'
import { eventually } from '#test/eventually.ts'
import { testImages } from '#test/images.ts'
import { productScope } from '#test/product.ts'
import { tempFolder } from '#test/temp.ts'
import { endShimsBelow, unmountBelow } from '#test/unmount.ts'

const RECOVERY_MS = 90_000

/** All that the set-up has made on the machine's engine, so that it need not be made again on another. */
async function copyImages(to: Docker): Promise<void> {
  const from = new Docker()
  const current = Object.values(testImages().docker ?? {}).flatMap(({ run, build }) => [run, build])
  const labelled = await from.listImages({ filters: { label: ['shoal.image=runtime'] } })
  const runtimes = labelled.filter(({ Id }) => current.includes(Id))
  const bases = await from.listImages({ filters: { reference: ['shoal/base'] } })
  const names = [...runtimes, ...bases].flatMap(({ RepoTags }) => RepoTags ?? [])
  assert.ok(names.length >= 4, `images to copy: ${names.join(' ')}`)
  for (const name of names) {
    const stream = await to.loadImage(await from.getImage(name).get())
    for await (const chunk of stream) assert.doesNotMatch(String(chunk), /"error"/)
  }
}

it(
  'after a SIGKILL of dockerd everything comes back without a hand',
  { timeout: 600_000 },
  async () => {
    await using folder = await tempFolder()
    const socketPath = folder.join('d.sock')
    await using product = await productScope({ SHOAL_DOCKER_SOCKET: socketPath })
    await using unmounting = new AsyncDisposableStack()
    unmounting.defer(() => unmountBelow(product.data))
    unmounting.defer(() => endShimsBelow(product.data))
    const options = { socketPath, data: product.data }
    const prepared = await startDockerd(options, AbortSignal.timeout(60_000))
    assert.ok(prepared !== undefined)
    await copyImages(new Docker({ socketPath }))
    assert.equal(await prepared.stop(), true)

    // npm start finds no engine at that socket, so it starts one, and keeps it running.
    await product.start()
    assert.equal((await curl(product.url('/echo'), '-d', 'hi')).body, 'hi')
    const pid = Number(await readFile(join(product.data, 'docker/dockerd.pid'), 'utf8'))
    process.kill(pid, 'SIGKILL')

    await eventually(
      async () => {
        const now = Number(await readFile(join(product.data, 'docker/dockerd.pid'), 'utf8'))
        return now !== pid && (await product.containers()).length >= 3
      },
      { timeoutMs: RECOVERY_MS },
    )
    for (const [fn, data, expected] of [
      ['sieve', '30', /10 primes/],
      ['echo', 'again', /^again$/],
      ['hello', 'you', /you/],
    ] as const) {
      await eventually(
        async () => expected.test((await curl(product.url(`/${fn}`), '-d', data)).body),
        { timeoutMs: RECOVERY_MS },
      )
    }
    assert.equal((await product.stop()).code, 0)
  },
)
