import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { after, before, describe, it } from 'node:test'
import { join } from 'node:path'
import { coapClient, curl, grpcCall } from '#test/clients.ts'
import { eventually } from '#test/eventually.ts'
import { functionFolder } from '#test/function-folder.ts'
import { productScope, type ProductScope, type Ran } from '#test/product.ts'

const SHOAL = join(import.meta.dirname, '../../controller/cli/shoal.mjs')

function assertDone(ran: Ran): void {
  assert.equal(ran.code, 0, ran.stdout + ran.stderr)
}

describe("an operator's day with the CLI", { timeout: 600_000 }, () => {
  let product: ProductScope

  before(async () => {
    product = await productScope({ SHOAL_SAMPLES: '0' })
    await product.start()
  })
  after(() => product[Symbol.asyncDispose]())

  const deploy = async (
    files: Readonly<Record<string, string>>,
    ...args: readonly string[]
  ): Promise<Ran> => {
    await using folder = await functionFolder(files)
    return await product.shoal('fn', 'deploy', folder.path, ...args)
  }

  it('starts with no functions and one node', async () => {
    const functions = await product.shoal('fn', 'ls', '--json')
    assert.deepEqual(JSON.parse(functions.stdout), { functions: [] })
    const nodes = await product.shoal('node', 'ls', '--json')
    const { nodes: list }: { nodes: { id: string; online: boolean }[] } = JSON.parse(nodes.stdout)
    assert.equal(list.length, 1)
    assert.equal(list[0]?.online, true)
  })

  it('deploys an npm package with a dependency, in the builder container, and says when nothing changed', async () => {
    const files = {
      'package.json': JSON.stringify({
        name: 'fn',
        main: 'index.js',
        dependencies: { 'is-number': '7.0.0' },
      }),
      'index.js': `
        const isNumber = require('is-number')
        module.exports = (req, res) => res.json({ number: isNumber(req.body) })`,
    }
    const first = await deploy(files, '--name', 'site/number')
    assertDone(first)
    assert.deepEqual(JSON.parse((await curl(product.url('/site/number'), '-d', '42')).body), {
      number: true,
    })
    const second = await deploy(files, '--name', 'site/number')
    assertDone(second)
    assert.match(second.stdout + second.stderr, /unchanged/i)
  })

  it('deploys a Python function with requirements and environment', async () => {
    const ran = await deploy(
      {
        'requirements.txt': 'six==1.16.0\n',
        'fn.py':
          "import os, six\ndef fn(input, headers):\n    return six.ensure_str(os.environ['GREETING']) + ' ' + headers['Lab']\n",
      },
      '--name',
      'greet',
      '--env',
      'GREETING=hello',
    )
    assertDone(ran)
    assert.equal((await curl(product.url('/greet'), '-H', 'lab: north')).body, 'hello north')
  })

  it('passes method, path rest, query, headers and body; gives back status, headers and body', async () => {
    const ran = await deploy(
      {
        'index.mjs': `export default async (request, context) => {
          const url = new URL(request.url)
          const seen = { method: request.method, path: url.pathname, query: url.search, tag: request.headers.get('x-tag'),
            body: await request.text(), fn: context.fn, protocol: context.protocol }
          return Response.json(seen, { status: 418, headers: { 'x-back': 'yes' } })
        }`,
      },
      '--name',
      'mirror',
    )
    assertDone(ran)
    const answer = await curl(
      product.url('/mirror/a%20b/c?x=1&y=2'),
      '-X',
      'PUT',
      '-H',
      'x-tag: t1',
      '-d',
      'body',
    )
    assert.equal(answer.status, 418)
    assert.equal(answer.headers['x-back'], 'yes')
    assert.match(answer.headers['content-type'] ?? '', /^application\/json/)
    const seen: Record<string, string> = JSON.parse(answer.body)
    assert.equal(seen['method'], 'PUT')
    assert.match(seen['path'] ?? '', /\/a%20b\/c$/)
    assert.equal(seen['query'], '?x=1&y=2')
    assert.equal(seen['tag'], 't1')
    assert.equal(seen['body'], 'body')
    assert.equal(seen['protocol'], 'http')

    const grpc = await grpcCall(
      `127.0.0.1:${product.ports.grpc}`,
      'shoal.v1.Functions/Invoke',
      {
        function: 'mirror',
        payload: Buffer.from('over grpc'),
        path: '/p',
        query: 'q=1',
        method: 'GET',
      },
      { 'x-tag': 't2' },
    )
    assert.equal(grpc.status, 418)
    assert.equal(grpc.metadata['x-back'], 'yes')
    assert.equal(JSON.parse(grpc.payload.toString()).tag, 't2')

    const coap = await coapClient(`coap://127.0.0.1:${product.ports.coap}/mirror/x?q=7`, {
      method: 'put',
      payload: 'over coap',
    })
    assert.match(coap.stdout + coap.stderr, /"query":"\?q=7"/)
  })

  it('accepts an asynchronous call at once, and 404s an unknown one', async () => {
    const startedAt = performance.now()
    const header = ['-H', 'X-tinyFaaS-Async: true']
    const known = await curl(product.url('/greet'), ...header)
    assert.equal(known.status, 202)
    assert.ok(performance.now() - startedAt < 10_000)
    assert.equal((await curl(product.url('/nobody'), ...header)).status, 404)
  })

  it('carries bodies of megabytes both ways, and refuses those above the limit', async () => {
    const echo = { 'index.mjs': 'export default async (request) => new Response(request.body)' }
    assertDone(await deploy(echo, '--name', 'big'))
    await using folder = await functionFolder({
      'body.bin': 'm'.repeat(6 * 1024 * 1024),
      'huge.bin': 'h'.repeat(9 * 1024 * 1024),
    })
    const answer = await curl(product.url('/big'), '--data-binary', `@${folder.join('body.bin')}`)
    assert.equal(answer.status, 200)
    assert.equal(answer.body.length, 6 * 1024 * 1024)
    const refused = await curl(product.url('/big'), '--data-binary', `@${folder.join('huge.bin')}`)
    assert.equal(refused.status, 413)
    assert.match(refused.body, /BODY_TOO_LARGE/)
  })

  it('shows the last lines of a failed build, and changes nothing', async () => {
    const ran = await deploy(
      {
        'package.json': JSON.stringify({
          name: 'fn',
          main: 'index.js',
          dependencies: { 'is-number': '99.99.99' },
        }),
        'index.js': 'module.exports = (req, res) => res.send("never")',
      },
      '--name',
      'site/number',
    )
    assert.equal(ran.code, 1)
    assert.match(ran.stderr, /BUILD_FAILED/)
    assert.match(ran.stdout + ran.stderr, /99\.99\.99/)
    assert.equal((await curl(product.url('/site/number'), '-d', '42')).status, 200)
  })

  it('keeps the old release serving when the new one cannot be loaded, and says why', async () => {
    const ran = await deploy(
      { 'index.js': 'throw new Error("broken at start")' },
      '--name',
      'mirror',
    )
    assert.equal(ran.code, 1)
    assert.match(ran.stdout + ran.stderr, /broken at start/)
    assert.equal((await curl(product.url('/mirror'))).status, 418)
  })

  it('invokes through the controller, and follows logs as they are written', async () => {
    const source = {
      'index.js': `module.exports = (req, res) => { console.log('saw ' + req.body); res.send('ok') }`,
    }
    assertDone(await deploy(source, '--name', 'talker'))
    const invoked = await product.shoal('fn', 'invoke', 'talker', '--data', 'one')
    assert.equal(invoked.stdout.trim(), 'ok')
    const logs = await product.shoal('fn', 'logs', 'talker')
    assert.match(logs.stdout, /saw one/)

    const follow = spawn(process.execPath, [SHOAL, 'fn', 'logs', 'talker', '-f'], {
      env: { ...process.env, ...product.env },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      const seen: string[] = []
      createInterface({ input: follow.stdout }).on('line', (line) => seen.push(line))
      await eventually(() => seen.some((line) => line.includes('saw one')))
      await curl(product.url('/talker'), '-d', 'two')
      await eventually(() => seen.some((line) => line.includes('saw two')))
    } finally {
      follow.kill('SIGINT')
    }
  })

  it('answers with documented exit codes', async () => {
    assert.equal((await product.shoal('fn', 'show', 'nobody')).code, 1)
    const none = await deploy(
      { 'fn.py': 'def fn(input):\n  return input\n' },
      '--name',
      'x',
      '--nodes',
      'site=moon',
    )
    assert.equal(none.code, 1)
    assert.match(none.stderr, /NO_NODE_SELECTED/)
    const wrong = await product.shoal('fn', 'deploy', '/does/not/exist')
    assert.equal(wrong.code, 1)
    assert.match(wrong.stderr, /\/does\/not\/exist/)
  })

  it('doctor finds a healthy installation healthy', async () => {
    const ran = await product.shoal('doctor')
    assert.equal(ran.code, 0, ran.stdout + ran.stderr)
  })

  it('the node reports health, metrics and readiness on its admin port', async () => {
    const at = `http://127.0.0.1:${product.ports.admin}`
    assert.equal((await curl(`${at}/healthz`)).status, 200)
    assert.equal((await curl(`${at}/readyz`)).status, 200)
    assert.match((await curl(`${at}/metrics`)).body, /shoal_invoke_/)
  })

  it('the API wants its token', async () => {
    const at = `http://127.0.0.1:${product.ports.api}`
    assert.equal((await curl(`${at}/v1/functions`)).status, 401)
    assert.equal((await curl(`${at}/healthz`)).status, 200)
  })

  it('a node that was removed comes back with its functions at the next start', async () => {
    const { stdout } = await product.shoal('node', 'ls', '--json')
    const { nodes }: { nodes: { id: string }[] } = JSON.parse(stdout)
    const id = nodes[0]?.id ?? ''
    assertDone(await product.shoal('node', 'rm', id))
    assert.equal((await curl(product.url('/greet'), '-H', 'lab: north')).status, 404)
    await product.stop()
    await product.start()
    await eventually(
      async () => (await curl(product.url('/greet'), '-H', 'lab: north')).status === 200,
      { timeoutMs: 30_000 },
    )
    const back = await product.shoal('node', 'show', id, '--json')
    assertDone(back)
  })

  it('removes one function, then wipes the rest', async () => {
    assertDone(await product.shoal('fn', 'rm', 'talker'))
    assert.equal((await curl(product.url('/talker'))).status, 404)
    assertDone(await product.shoal('fn', 'wipe', '--yes'))
    assert.equal((await curl(product.url('/greet'))).status, 404)
    await eventually(async () => (await product.handlers()).length === 0, { timeoutMs: 30_000 })
  })
})
