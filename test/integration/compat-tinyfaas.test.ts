import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { once } from 'node:events'
import { it } from 'node:test'
import { promisify } from 'node:util'
import { strToU8, zipSync } from 'fflate'
import { createBuilder } from '#controller/build/index.ts'
import { startCompat } from '#controller/compat/index.ts'
import { ApiPeer } from '#test/api-peer.ts'
import { apiFunction, apiNode, rolloutNodes } from '#test/api-views.ts'
import { CapturedLog } from '#test/captured-log.ts'
import { freePort } from '#test/ports.ts'
import { tempFolder } from '#test/temp.ts'

const run = promisify(execFile)

interface Answer {
  readonly status: number
  readonly body: string
  readonly type: string
}

interface TinyFaas extends AsyncDisposable {
  readonly peer: ApiPeer
  readonly log: CapturedLog
  /** Runs curl as tinyFaaS's scripts do: the answer's body, with its status behind it. */
  curl(path: string, ...args: readonly string[]): Promise<Answer>
  /** Runs a script of `sh`, in which `$URL` is the management address. */
  sh(script: string, cwd: string): Promise<string>
  upload(body: Readonly<Record<string, unknown>>): Promise<Answer>
}

/** The adapter before a peer that really builds what is uploaded. */
async function tinyFaas(): Promise<TinyFaas> {
  const stack = new AsyncDisposableStack()
  const temp = stack.use(await tempFolder())
  const peer = stack.use(await ApiPeer.start())
  const log = new CapturedLog()
  peer.builder = stack.use(
    createBuilder({ folder: temp.join('build'), images: { arch: 'amd64' }, log }),
  )
  peer.nodes = [apiNode('n1')]
  peer.snapshots = [
    { state: 'rolling', nodes: rolloutNodes('applying') },
    { state: 'done', nodes: rolloutNodes('ready') },
  ]
  const options = { apiUrl: peer.url, token: peer.token, ports: { tinyfaas: 0 }, log }
  const compat = stack.use(await startCompat(['tinyfaas'], options))
  const url = `http://127.0.0.1:${compat.ports.tinyfaas}`
  const curl: TinyFaas['curl'] = async (path, ...args) => {
    const format = '\n%{http_code} %{content_type}'
    const { stdout } = await run('curl', ['-s', '-w', format, ...args, url + path])
    const at = stdout.lastIndexOf('\n')
    const [status = '', ...type] = stdout.slice(at + 1).split(' ')
    return { status: Number(status), type: type.join(' '), body: stdout.slice(0, at) }
  }
  let uploads = 0
  return {
    peer,
    log,
    curl,
    async sh(script, cwd) {
      const { stdout } = await run('sh', ['-ec', script], {
        cwd,
        env: { ...process.env, URL: url },
      })
      return stdout
    },
    async upload(body) {
      // A file of its own: uploads may be under way at once.
      const file = temp.join(`body-${++uploads}.json`)
      await writeFile(file, JSON.stringify(body))
      return curl('/upload', '--data-binary', `@${file}`)
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

const EMPTY = { body: '', type: '' }
const ZIP = Buffer.from(
  zipSync({
    'package.json': strToU8('{"name":"fn","main":"lib/handler.js"}'),
    'lib/handler.js': strToU8('module.exports = (req, res) => res.send("hi")'),
  }),
).toString('base64')
const FN = { name: 'sieve', env: 'nodejs', threads: 2, zip: ZIP }
const UPLOADED = 'coap://:5683/sieve\nhttp://:8000/sieve\n'

it('the upload script: zip, base64 and curl with the JSON as form data', async () => {
  await using tiny = await tinyFaas()
  await using folder = await tempFolder()
  await mkdir(folder.join('fn/lib'), { recursive: true })
  await writeFile(folder.join('fn/package.json'), '{"name":"fn","main":"index.js"}')
  await writeFile(folder.join('fn/index.js'), 'module.exports = require("./lib/a.js")')
  await writeFile(folder.join('fn/lib/a.js'), 'x')
  const out = await tiny.sh(
    `cd fn
     ZIP=$(zip -q -r - ./* | base64 | tr -d '\\n')
     curl -s "$URL/upload" --data "{\\"name\\": \\"sieve\\", \\"env\\": \\"nodejs\\", \\"threads\\": 3, \\"zip\\": \\"$ZIP\\"}"`,
    folder.path,
  )
  assert.equal(out, UPLOADED)
  const call = tiny.peer.call('POST', '/v1/functions/sieve/releases')
  assert.equal(call.headers['content-type'], 'application/zip')
  assert.equal(call.query.get('runtime'), 'nodejs')
  const fn = tiny.peer.functions.get('sieve')
  assert.equal(fn?.releases[0]?.entry, 'index.js')
  assert.deepEqual(
    { replicas: fn.settings?.replicas, errors: fn.settings?.errors, network: fn.settings?.network },
    { replicas: 3, errors: 'tinyfaas', network: 'outbound' },
  )
})

it('a zip without folder entries, sent as text/plain with null envs and odd names of keys', async () => {
  await using tiny = await tinyFaas()
  const body = { Name: 'sieve', ENV: 'nodejs', Threads: 1, zip: ZIP, envs: null, extra: { a: 1 } }
  assert.deepEqual(await tiny.upload(body), {
    status: 200,
    body: UPLOADED,
    type: 'text/plain; charset=utf-8',
  })
  assert.equal(tiny.peer.functions.get('sieve')?.releases[0]?.entry, 'lib/handler.js')
})

it('environment entries reach the function; those without a value sign are skipped', async () => {
  await using tiny = await tinyFaas()
  assert.equal((await tiny.upload({ ...FN, envs: ['A=1', 'nothing'] })).status, 200)
  assert.deepEqual(tiny.peer.functions.get('sieve')?.settings?.env, { A: '1' })
  assert.equal((await tiny.upload(FN)).status, 200)
  assert.deepEqual(tiny.peer.functions.get('sieve')?.settings?.env, {})
})

it('uploadURL takes a subfolder of an archive, and the whole of it for / or nothing', async () => {
  await using tiny = await tinyFaas()
  const archive = zipSync({
    'repo-main/README.md': strToU8('x'),
    'repo-main/fns/echo/fn.py': strToU8('def fn(input): return input'),
  })
  const web = createServer((_, response) => response.end(archive))
  web.listen(0, '127.0.0.1')
  await once(web, 'listening')
  const address = web.address()
  assert.ok(typeof address === 'object' && address !== null)
  const url = `http://127.0.0.1:${address.port}/main.zip`
  const send = (subfolder_path: string) => {
    const body = { name: 'echo', env: 'python3', threads: 1, url, subfolder_path }
    return tiny.curl('/uploadURL', '--data', JSON.stringify(body))
  }
  try {
    assert.equal((await send('repo-main/fns/echo')).body, 'coap://:5683/echo\nhttp://:8000/echo\n')
    assert.deepEqual(await send('nowhere'), { status: 500, ...EMPTY })
    assert.deepEqual(await send('/'), { status: 500, ...EMPTY })
  } finally {
    web.closeAllConnections()
    web.close()
  }
})

it('upload returns when the function answers; when it does not, 500, and a new one is forgotten', async () => {
  await using tiny = await tinyFaas()
  tiny.peer.snapshots = [{ state: 'failed', nodes: rolloutNodes('failed') }]
  assert.deepEqual(await tiny.upload(FN), { status: 500, ...EMPTY })
  assert.equal(tiny.peer.functions.size, 0)
  tiny.peer.snapshots = [{ state: 'done', nodes: rolloutNodes('ready') }]
  assert.equal((await tiny.upload(FN)).status, 200)
  tiny.peer.snapshots = [{ state: 'timed-out', nodes: rolloutNodes('applying') }]
  assert.equal((await tiny.upload(FN)).status, 500)
  assert.equal(tiny.peer.functions.size, 1)
  tiny.peer.snapshots = [{ state: 'waiting', nodes: rolloutNodes('ready', 'offline') }]
  assert.equal((await tiny.upload(FN)).status, 200)
  tiny.peer.snapshots = [{ state: 'waiting', nodes: rolloutNodes('offline') }]
  assert.equal((await tiny.upload(FN)).status, 500)
})

it('uploads of one name at the same time take their turns, and a failed one removes nothing of the next', async () => {
  await using tiny = await tinyFaas()
  tiny.peer.snapshots = [{ state: 'failed', nodes: rolloutNodes('failed') }]
  const first = tiny.upload(FN)
  const second = tiny.upload(FN)
  assert.equal((await first).status, 500)
  tiny.peer.snapshots = [{ state: 'done', nodes: rolloutNodes('ready') }]
  await second
  assert.equal((await tiny.upload(FN)).status, 200)
  assert.equal(tiny.peer.functions.size, 1)
})

it('many uploads at once wait for each other, and none is refused', async () => {
  await using tiny = await tinyFaas()
  const names = Array.from({ length: 12 }, (_, index) => `fn${index}`)
  const answers = await Promise.all(names.map((name) => tiny.upload({ ...FN, name })))
  assert.deepEqual(
    answers.map(({ status }) => status),
    names.map(() => 200),
  )
})

it('a function that was deployed another way is not replaced', async () => {
  await using tiny = await tinyFaas()
  tiny.peer.functions.set('sieve', apiFunction('sieve'))
  assert.deepEqual(await tiny.upload(FN), { status: 500, ...EMPTY })
  assert.equal(tiny.peer.calls.filter(({ method }) => method === 'POST').length, 0)
})

it('what tinyFaaS answers with 400, with 500 and with 404', async () => {
  await using tiny = await tinyFaas()
  const bad = { status: 400, ...EMPTY }
  const failed = { status: 500, ...EMPTY }
  assert.deepEqual(await tiny.curl('/upload', '--data', 'not json'), bad)
  assert.deepEqual(await tiny.curl('/upload', '--data', '{"name":1}'), bad)
  assert.deepEqual(await tiny.curl('/delete', '--data', ''), bad)
  for (const [path, method] of [
    ['/upload', 'GET'],
    ['/uploadURL', 'PUT'],
    ['/delete', 'DELETE'],
    ['/list', 'POST'],
    ['/wipe', 'GET'],
    ['/logs', 'POST'],
  ] as const) {
    assert.deepEqual(await tiny.curl(path, '-X', method), bad, path)
  }
  assert.deepEqual(await tiny.upload({ ...FN, zip: '!' }), failed)
  assert.deepEqual(await tiny.upload({ ...FN, zip: 'bm8gemlw' }), failed)
  assert.deepEqual(await tiny.upload({ ...FN, name: 'a-b' }), failed)
  assert.deepEqual(await tiny.upload({ ...FN, env: 'cobol' }), failed)
  assert.deepEqual(await tiny.upload({ ...FN, threads: -1 }), failed)
  assert.deepEqual(await tiny.curl('/delete', '--data', '{"name":"nobody"}'), failed)
  assert.deepEqual(await tiny.curl('/logs?name=nobody'), failed)
  for (const path of ['/', '/upload/', '/nowhere']) {
    assert.deepEqual(await tiny.curl(path), {
      status: 404,
      body: '404 page not found\n',
      type: 'text/plain; charset=utf-8',
    })
  }
  assert.equal(tiny.peer.functions.size, 0)
  assert.ok(tiny.log.lines.some(({ level }) => level === 'warn'))
})

it('only the first JSON value counts, and what follows is not looked at', async () => {
  await using tiny = await tinyFaas()
  await tiny.upload(FN)
  const answer = await tiny.curl('/delete', '--data', '{"name":"sieve"} {"name":"other"} rubbish')
  assert.deepEqual(answer, { status: 200, ...EMPTY })
  assert.equal(tiny.peer.functions.size, 0)
})

it('list, delete and wipe see what was uploaded here, and nothing that others deployed', async () => {
  await using tiny = await tinyFaas()
  assert.deepEqual(await tiny.curl('/list'), { status: 200, ...EMPTY })
  tiny.peer.functions
    .set('site/thermo', apiFunction('site/thermo'))
    .set('mine', apiFunction('mine'))
  await tiny.upload(FN)
  await tiny.upload({ ...FN, name: 'alpha' })
  assert.equal((await tiny.curl('/list')).body, 'alpha\nsieve\n')
  assert.equal((await tiny.curl('/delete', '--data', '{"name":"mine"}')).status, 500)
  assert.deepEqual(await tiny.curl('/delete', '--data', '{"name":"alpha"}'), {
    status: 200,
    ...EMPTY,
  })
  assert.deepEqual(await tiny.curl('/wipe', '--data', ''), { status: 200, ...EMPTY })
  assert.deepEqual([...tiny.peer.functions.keys()], ['site/thermo', 'mine'])
})

it('logs of one function, and of all with an empty line after each', async () => {
  await using tiny = await tinyFaas()
  await tiny.upload(FN)
  await tiny.upload({ ...FN, name: 'alpha' })
  const line = { node: 'n1', fn: 'sieve', release: 'r1-abababab', handler: 'h1' }
  tiny.peer.logs = [
    { ...line, atMs: 1000, level: 'error', text: 'wrong' },
    { ...line, atMs: 2500, level: 'info', text: 'fine' },
  ]
  const one = (await tiny.curl('/logs?name=sieve')).body
  assert.match(
    one,
    /^function=sieve handler=[0-9a-f]{64} 1970-01-01T00:00:02\.5Z fine\nfunction=sieve handler=[0-9a-f]{64} 1970-01-01T00:00:01Z wrong\n$/,
  )
  const all = (await tiny.curl('/logs')).body
  assert.equal(all, `${one.replaceAll('=sieve', '=alpha')}\n${one}\n`)
})

it('a web page is refused: this port knows no tokens, and browsers reach loopback', async () => {
  await using tiny = await tinyFaas()
  const refused = { status: 403, ...EMPTY }
  const page = ['-H', 'Origin: https://evil.example', '-H', 'Content-Type: text/plain']
  assert.deepEqual(await tiny.curl('/wipe', '--data', '', ...page), refused)
  assert.deepEqual(await tiny.curl('/list', '-H', 'Sec-Fetch-Site: same-origin'), refused)
  // A name of the page's own that points here (DNS rebinding): same-origin for the browser.
  assert.deepEqual(await tiny.curl('/list', '-H', 'Host: evil.example:8080'), refused)
  assert.equal((await tiny.curl('/list', '-H', 'Host: localhost:8080')).status, 200)
})

it('more than an upload may hold is refused and not kept in memory', async () => {
  await using tiny = await tinyFaas()
  const script = `head -c 100000000 /dev/zero | tr '\\0' 'A' | curl -s -o /dev/null -w '%{http_code}' "$URL/upload" --data-binary @- || true`
  assert.equal(await tiny.sh(script, '/'), '413')
})

it('only known adapters start, and a port that is taken is named with its setting', async () => {
  const log = new CapturedLog()
  const options = { apiUrl: 'http://127.0.0.1:1', token: 'x', log }
  await assert.rejects(startCompat(['tinyfaas', 'other'], options), {
    code: 'CONFIG_INVALID',
    message: /other; known: tinyfaas/,
  })
  await using none = await startCompat([], options)
  assert.deepEqual(none.ports, {})
  const port = await freePort()
  await using first = await startCompat(['tinyfaas'], { ...options, ports: { tinyfaas: port } })
  assert.equal(first.ports.tinyfaas, port)
  await assert.rejects(startCompat(['tinyfaas'], { ...options, ports: { tinyfaas: port } }), {
    code: 'PORT_TAKEN',
    message: /SHOAL_COMPAT_TINYFAAS_PORT/,
  })
})
