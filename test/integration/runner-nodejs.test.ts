import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { checkAnswers, type Files } from '#test/runner-rows.ts'
import { RunnerScope } from '#test/runner-scope.ts'

const hello = 'x = () => "hello"; module.exports = (req, res) => res.send(x())'
const native = 'export default () => new Response("native")'

describe('nodejs: where the function is found', { timeout: 60_000 }, () => {
  checkAnswers('nodejs', [
    { name: 'index.js, CommonJS in sloppy mode', files: { 'index.js': hello }, text: 'hello' },
    { name: 'index.js with ESM syntax', files: { 'index.js': native }, text: 'native' },
    { name: 'index.mjs', files: { 'index.mjs': native }, text: 'native' },
    { name: 'fn.cjs', files: { 'fn.cjs': hello }, text: 'hello' },
    {
      name: 'index.ts, types stripped',
      files: { 'index.ts': 'export default (r: Request): Response => new Response(r.method)' },
      text: 'POST',
    },
    {
      name: 'main of package.json, without its extension',
      files: { 'package.json': '{"name":"fn","main":"lib/sieve"}', 'lib/sieve.js': hello },
      text: 'hello',
    },
    {
      name: 'exports of package.json, type module',
      files: {
        'package.json': '{"type":"module","exports":{".":{"import":"./src/a.js"}}}',
        'src/a.js': native,
      },
      text: 'native',
    },
    {
      name: 'the entry of INIT',
      files: { 'index.js': 'throw 1', 'other.js': hello },
      init: { entry: 'other.js' },
      text: 'hello',
    },
    {
      name: 'modules beside it can be required',
      files: {
        'index.js': 'module.exports = (q, s) => s.json(require("./data.json"))',
        'data.json': '[1]',
      },
      text: '[1]',
      header: ['content-type', 'application/json; charset=utf-8'],
    },
  ])
})

describe('nodejs: which contract it is', { timeout: 60_000 }, () => {
  checkAnswers('nodejs', [
    {
      name: 'an ES module says contract = classic',
      files: {
        'index.mjs': 'export const contract = "classic"\nexport default (q, s) => s.send("c")',
      },
      text: 'c',
    },
    {
      name: 'a CommonJS module says contract = native',
      files: {
        'index.js': 'module.exports = () => new Response("n"); module.exports.contract = "native"',
      },
      text: 'n',
    },
    {
      name: 'what a compiler made of an ES module is native',
      files: {
        'index.js':
          'Object.defineProperty(exports, "__esModule", {value: true}); exports.default = () => new Response("n")',
      },
      text: 'n',
    },
    {
      name: 'a Response from a CommonJS function: the error says what to do',
      files: { 'index.js': 'module.exports = async () => new Response("n")' },
      error: /module\.exports\.contract = 'native'/,
    },
    {
      name: 'nothing from a native function: the error says what to do',
      files: { 'index.mjs': 'export default async (req, res) => {}' },
      error: /contract = 'classic'/,
    },
  ])
})

const classic = (body: string): Files => ({
  'index.js': `module.exports = (req, res, next) => { ${body} }`,
})

describe('nodejs: the classic contract', { timeout: 60_000 }, () => {
  checkAnswers('nodejs', [
    {
      name: 'body is text, empty without a body',
      files: classic('res.json([typeof req.body, req.body])'),
      text: '["string",""]',
    },
    {
      name: 'body beyond ASCII is read as UTF-8, rawBody keeps the bytes',
      files: classic('res.json([req.body, req.rawBody.length])'),
      request: { body: 'grüß' },
      text: '["grüß",6]',
    },
    {
      name: 'the request is a readable stream',
      files: {
        'index.js':
          'module.exports = async (q, s) => { let n = 0; for await (const c of q) n += c.length; s.send(String(n)) }',
      },
      request: { body: 'x'.repeat(10_000) },
      text: '10000',
    },
    {
      name: 'query is parsed, url and path are there',
      files: classic('res.json([req.query.a, req.url, req.path, req.is("json")])'),
      request: { path: '/p', query: 'a=1&b=2', headers: ['content-type', 'application/json'] },
      text: '["1","/p?a=1&b=2","/p","json"]',
    },
    {
      name: 'a header may be called like what every object has, and cookies stay apart',
      files: classic('res.json([req.headers, req.get("constructor"), req.get("__proto__")])'),
      request: {
        headers: ['constructor', 'x', 'cookie', 'a=1', 'cookie', 'b=2', 'x-a', '1', 'x-a', '2'],
      },
      text: '[{"constructor":"x","cookie":"a=1; b=2","x-a":"1, 2"},"x",null]',
    },
    {
      name: 'a header that has not come is not there, whatever it is called',
      files: classic(
        'res.send(["constructor", "__proto__", "x-a"].map((name) => typeof req.get(name)).join())',
      ),
      text: 'undefined,undefined,undefined',
    },
    { name: 'send of an object is JSON', files: classic('res.send({ a: 1 })'), text: '{"a":1}' },
    {
      name: 'text is plain text, unless it is an HTML page',
      files: classic('res.send("<!doctype html><p>")'),
      header: ['content-type', 'text/html; charset=utf-8'],
    },
    {
      name: 'type, status, several values of a header',
      files: classic('res.type("json").status(201).set({ "X-A": ["1", "2"] }).end("{}")'),
      status: 201,
      text: '{}',
      header: ['content-type', 'application/json; charset=utf-8'],
    },
    {
      name: 'request and response are streams, also to those who ask',
      files: {
        'index.js': `const { Readable, Writable, finished, Transform } = require('node:stream')
const { pipeline } = require('node:stream/promises')
module.exports = async (req, res) => {
  const seen = []
  for (const event of ['pipe', 'close']) res.on(event, () => seen.push(event))
  const fresh = [res.writable, res.writableEnded, res.destroyed, req.readable, req.destroyed]
  const same = [req instanceof Readable, res instanceof Writable, req instanceof Writable]
  const upper = new Transform({ transform(part, _, done) { done(null, part.toString().toUpperCase()) } })
  res.write(JSON.stringify([...fresh, ...same]))
  await Promise.all([pipeline(req, upper, res), new Promise((done) => finished(res, done))])
  console.log(seen.join() + res.writableEnded)
}`,
      },
      request: { body: 'grüß' },
      text: '[true,false,false,true,false,true,true,false]GRÜSS',
    },
    {
      name: 'write and end',
      files: classic('res.write("a"); res.write("b"); res.end("c")'),
      text: 'abc',
    },
    { name: 'next without an error is a 404', files: classic('next()'), status: 404 },
    {
      name: 'next with an error fails the call',
      files: classic('next(new Error("nope"))'),
      error: /nope/,
    },
    {
      name: 'a rejection nobody handles belongs to its call',
      files: classic('setTimeout(async () => { throw new Error("later") }, 1)'),
      error: /later/,
    },
    {
      name: 'an exception in a timer belongs to its call',
      files: classic('setTimeout(() => { throw new Error("timer") }, 1)'),
      error: /timer/,
    },
    {
      name: 'a header with a line end is refused',
      files: classic('res.set("x-a", "1\\n2").send("no")'),
      error: /line end/,
    },
    {
      name: 'a second answer is an error that the first one does not feel',
      files: classic('res.send("one"); try { res.send("two") } catch {}'),
      text: 'one',
    },
  ])
})

describe('nodejs: memory', { timeout: 60_000 }, () => {
  it('bodies of calls that have ended do not stay', async () => {
    await using scope = await RunnerScope.start({
      runtime: 'nodejs',
      fn: {
        'index.js': `let most = 0
module.exports = (req, res) => {
  most = Math.max(most, process.memoryUsage().arrayBuffers)
  res.set('x-most', String(most)).send(req.rawBody)
}`,
      },
    })
    const session = await scope.ready()
    const body = Buffer.alloc(1_048_576, 'x')
    let most = 0
    for (let n = 0; n < 100; n += 1) {
      const headers = ['content-length', String(body.length)]
      const call = session.begin({ headers }, false)
      await session.sendBody(call, body, true)
      const answer = await call.answer()
      assert.ok(answer.body.equals(body))
      most = Number(answer.headers[answer.headers.indexOf('x-most') + 1])
    }
    // Its read buffer, a body or two, and 8 MiB that are looked at together; it was 64 MiB and more.
    assert.ok(most < 24 * 1_048_576, `${most} bytes of buffers at most`)
  })

  it(
    'a function that writes far more than is read fails that call, and serves the next',
    { timeout: 30_000 },
    async () => {
      await using scope = await RunnerScope.start({
        runtime: 'nodejs',
        fn: {
          'index.js': `module.exports = (req, res) => {
  if (req.method === 'GET') return void res.send('well')
  for (let n = 0; n < 1_100; n += 1) res.write(Buffer.alloc(65_536))
}`,
        },
      })
      const session = await scope.ready()
      const call = session.begin()
      const { error } = await call.answer()
      assert.deepEqual([error?.kind, /caller has read/.test(error?.text ?? '')], [4, true])
      assert.equal((await session.call({ method: 'GET' })).text, 'well')
    },
  )

  it('what a function writes after the end of its call takes none', async () => {
    await using scope = await RunnerScope.start({
      runtime: 'nodejs',
      fn: {
        'index.js': `let grown = 0
let told
const turn = () => new Promise((resolve) => setImmediate(resolve))
module.exports = async (req, res) => {
  if (req.method === 'GET') return void res.json({ grown, told: String(told) })
  res.write('x')
  await new Promise((resolve) => req.on('close', resolve))
  told = await new Promise((resolve) => res.write('x', resolve))
  const before = process.memoryUsage.rss()
  for (let n = 0; n < 4000; n += 1) {
    if (!res.write('x'.repeat(65536))) await turn()
    grown = Math.max(grown, process.memoryUsage.rss() - before)
  }
}`,
      },
    })
    const session = await scope.ready()
    const call = session.begin()
    await session.ping()
    session.cancel(call)
    assert.equal((await call.answer()).error?.kind, 3)
    const { grown, told } = JSON.parse((await session.call({ method: 'GET' })).text)
    assert.match(told, /^Error/)
    assert.ok(grown < 8 * 1_048_576, `${grown} bytes more at most`)
  })
})

const handler = (body: string): Files => ({
  'index.mjs': `export default async (request, context) => { ${body} }`,
})

describe('nodejs: the native contract', { timeout: 60_000 }, () => {
  checkAnswers('nodejs', [
    {
      name: 'request and response are instances of the standard classes',
      files: handler(
        'const r = new Response("x"); return Response.json([request instanceof Request, r instanceof Response, await r.clone().text(), (await request.clone().json()).a])',
      ),
      request: { body: '{"a":5}' },
      text: '[true,true,"x",5]',
      header: ['content-type', 'application/json'],
    },
    {
      name: 'a body can be read once',
      files: handler('await request.text(); return request.text()'),
      request: { body: 'x' },
      error: /already been read/,
    },
    {
      name: 'a request can be copied with changes',
      files: handler(
        'const copy = new Request(request, { headers: { "x-new": "1" } }); return new Response(copy.headers.get("x-new") + await copy.text())',
      ),
      request: { body: 'y' },
      text: '1y',
    },
    {
      name: 'headers object, status and bytes',
      files: handler(
        'const headers = new Headers({ "X-A": "b" }); return new Response(new Uint8Array([65]), { status: 202, headers })',
      ),
      status: 202,
      text: 'A',
      header: ['x-a', 'b'],
    },
    {
      name: 'headers from an iterator, one of them beyond ASCII',
      files: handler(
        'const headers = new Map([["x-a", "1"], ["x-b", "\u00e9"]]).entries(); return new Response("x", { headers })',
      ),
      header: ['x-a', '1'],
    },
    {
      name: 'a promise of another kind',
      files: {
        'index.mjs':
          'export default () => ({ then: (done) => void setTimeout(done, 1, new Response("then")) })',
      },
      text: 'then',
    },
    { name: 'redirects', files: handler('return Response.redirect("http://a/b")'), status: 302 },
    {
      name: 'a status that has no body',
      files: handler('return new Response(null, { status: 204 })'),
      status: 204,
      text: '',
    },
    {
      name: 'context: names, deadline and signal',
      files: handler(
        'return Response.json([context.fn, context.release, context.deadlineMs, context.signal.aborted])',
      ),
      request: { deadlineMs: 5_000 },
      text: '["test","r1-test",5000,false]',
    },
  ])

  it('the signal aborts when the call is cancelled', async () => {
    await using scope = await RunnerScope.start({
      runtime: 'nodejs',
      fn: handler(
        'context.signal.addEventListener("abort", () => console.log("aborted")); await new Promise(() => {})',
      ),
    })
    const session = await scope.ready()
    const call = session.begin()
    await session.ping()
    session.cancel(call)
    const line = await session.log(({ text }) => text === 'aborted')
    assert.equal(line.id, call.id)
  })

  it('an exception that belongs to no call: every call gets an answer, then the process ends', async () => {
    await using scope = await RunnerScope.start({
      runtime: 'nodejs',
      fn: {
        'index.mjs':
          'setTimeout(() => { throw new Error("from nowhere") }, 300)\nexport default () => new Promise(() => {})',
      },
    })
    const session = await scope.ready()
    const calls = [session.begin(), session.begin()]
    for (const call of calls) {
      const { error } = await call.answer()
      assert.equal(error?.kind, 0)
      assert.match(error.text, /from nowhere/)
    }
    assert.equal(await scope.exited, 70)
  })
})

describe('nodejs: warnings', { timeout: 60_000 }, () => {
  it('an ES module without a package.json is no reason for one, others reach the log', async () => {
    await using scope = await RunnerScope.start({
      runtime: 'nodejs',
      fn: { 'index.js': `process.emitWarning('mind the gap'); ${native}` },
    })
    const session = await scope.ready()
    assert.equal((await session.call()).text, 'native')
    await session.log(({ text }) => text === 'Warning: mind the gap')
    assert.deepEqual(
      session.logs.filter(({ text }) => text.includes('package.json')),
      [],
    )
  })
})
