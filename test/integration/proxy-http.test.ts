import assert from 'node:assert/strict'
import { request as httpRequest } from 'node:http'
import { test } from 'node:test'
import { eventually } from '#test/eventually.ts'
import { httpProxyScope } from '#test/http-proxy-scope.ts'
import { patterned, produced } from '#test/invoker.ts'
import { RawTcp } from '#test/raw-tcp.ts'
import { LOOPBACKS, urlHost } from '#test/loopback.ts'

async function toldBy(answer: Response): Promise<Told> {
  const told: Told = JSON.parse(await answer.text())
  return told
}

async function codeOf(answer: Response): Promise<string> {
  const fault: { code: string } = JSON.parse(await answer.text())
  return fault.code
}

interface Told {
  fn: string
  method: string
  path: string
  query: string
  headers: string[]
  requestId: string
  deadlineMs?: number
  protocol: string
  body: string
}

test('a function is told method, rest of the path, query, header fields and body, and names have up to four segments', async () => {
  await using scope = await httpProxyScope()
  const answer = await fetch(scope.url('/inspect/a%20b/c?x=1&y=%2F'), {
    method: 'PUT',
    body: 'payload',
    headers: { 'X-Lab': 'fish', 'Content-Type': 'weird/type; q' },
  })
  assert.equal(answer.status, 200)
  assert.equal(answer.headers.get('content-type'), 'application/json')
  const told = await toldBy(answer)
  assert.equal(told.fn, 'inspect')
  assert.equal(told.method, 'PUT')
  assert.equal(told.path, '/a%20b/c')
  assert.equal(told.query, 'x=1&y=%2F')
  assert.equal(told.protocol, 'http')
  assert.equal(told.body, 'payload')
  assert.equal(told.headers[told.headers.indexOf('x-lab') + 1], 'fish')
  assert.equal(told.headers[told.headers.indexOf('content-type') + 1], 'weird/type; q')
  assert.equal(told.headers.includes('connection'), false)
  assert.equal(answer.headers.get('x-request-id'), told.requestId)

  const nested = await fetch(scope.url('/site/a/b/echo/rest'), { method: 'POST', body: 'deep' })
  assert.equal(await nested.text(), 'deep')
})

test('it answers on IPv4 and on IPv6', async () => {
  await using scope = await httpProxyScope()
  for (const host of LOOPBACKS.map(urlHost)) {
    const answer = await fetch(`http://${host}:${scope.proxy.port}/echo`, {
      method: 'POST',
      body: 'x',
    })
    assert.equal(await answer.text(), 'x', host)
  }
})

test('every method that is not CONNECT reaches the function, with and without a body', async () => {
  await using scope = await httpProxyScope()
  for (const method of [
    'GET',
    'DELETE',
    'PATCH',
    'OPTIONS',
    'PROPFIND',
    'QUERY',
    'M-SEARCH',
    'TRACE',
  ]) {
    const told = await send(scope.url('/inspect'), method, 'b')
    const seen: Told = JSON.parse(told.body)
    assert.deepEqual([seen.method, seen.body], [method, 'b'])
  }
})

test('status, header fields (also repeated ones), content type and body come back; those of one connection do not', async () => {
  await using scope = await httpProxyScope()
  const query =
    'status=418&body=short&header=x-a=1&header=x-a=2&header=content-type=a/b&header=connection=x-hop,close' +
    '&header=x-hop=gone&header=transfer-encoding=chunked&header=content-length=999&header=keep-alive=no'
  const answer = await send(scope.url(`/status?${query}`), 'GET')
  assert.equal(answer.status, 418)
  assert.equal(answer.body, 'short')
  assert.deepEqual(answer.fields('x-a'), ['1', '2'])
  assert.deepEqual(answer.fields('content-type'), ['a/b'])
  assert.deepEqual(answer.fields('content-length'), ['5'])
  assert.deepEqual(answer.fields('x-hop'), [])
  assert.deepEqual(answer.fields('transfer-encoding'), [])
})

test('a function that names no content type answers as text when it is UTF-8, else as octets', async () => {
  await using scope = await httpProxyScope()
  const rows: [string | Buffer, string][] = [
    ['plain', 'text/plain; charset=utf-8'],
    ['{"a":1}', 'text/plain; charset=utf-8'],
    ['', 'text/plain; charset=utf-8'],
    [Buffer.from([0xff, 0xfe, 0]), 'application/octet-stream'],
  ]
  for (const [body, expected] of rows) {
    const answer = await fetch(scope.url('/echo'), { method: 'POST', body })
    assert.equal(answer.headers.get('content-type'), expected)
  }
  const stream = await fetch(scope.url('/pieces'))
  assert.equal(stream.headers.get('content-type'), 'text/plain; charset=utf-8')
  assert.equal(await stream.text(), '000001111122222')
})

test('bodies of every size come through whole, with a length and chunked', async () => {
  await using scope = await httpProxyScope()
  for (const bytes of [0, 1, 65_535, 65_536, 65_537, 1_000_000]) {
    const body = patterned(bytes)
    for (const path of ['/echo', '/stream']) {
      const whole = await fetch(scope.url(path), { method: 'POST', body })
      assert.ok(Buffer.from(await whole.arrayBuffer()).equals(body), `${path} ${bytes}`)
      const chunked = await fetch(scope.url(path), {
        method: 'POST',
        body: new Blob([body]).stream(),
        duplex: 'half',
      })
      assert.ok(Buffer.from(await chunked.arrayBuffer()).equals(body), `${path} ${bytes} chunked`)
    }
  }
})

test('a body above the limit is refused with 413, whether its length is given or not, and the connection stays usable', async () => {
  await using scope = await httpProxyScope({ bodyBytesMax: 100_000 })
  const known = await fetch(scope.url('/echo'), { method: 'POST', body: patterned(100_001) })
  assert.equal(known.status, 413)
  assert.equal(await codeOf(known), 'BODY_TOO_LARGE')
  const body = new Blob([patterned(150_000)]).stream()
  const chunked = await fetch(scope.url('/echo'), { method: 'POST', body, duplex: 'half' })
  assert.equal(chunked.status, 413)
  const background = await fetch(scope.url('/echo'), {
    method: 'POST',
    body: new Blob([patterned(150_000)]).stream(),
    duplex: 'half',
    headers: { 'x-tinyfaas-async': '1' },
  })
  assert.equal(background.status, 413)
  const exact = await fetch(scope.url('/echo'), { method: 'POST', body: patterned(100_000) })
  assert.equal(exact.status, 200)
  assert.equal((await exact.arrayBuffer()).byteLength, 100_000)
})

test('every fault answers with its status, its code as JSON, and Retry-After when it names a time', async () => {
  await using scope = await httpProxyScope()
  const rows: [string, number, boolean, string | null][] = [
    ['code=FUNCTION_SATURATED&retryAfterMs=1200', 429, true, '2'],
    ['code=FUNCTION_SATURATED&retryAfterMs=0', 429, true, '1'],
    ['code=FUNCTION_UNAVAILABLE', 503, true, null],
    ['code=DEADLINE_EXCEEDED', 504, false, null],
    ['code=FUNCTION_ERROR', 500, false, null],
    ['code=FUNCTION_EXITED', 502, true, null],
  ]
  for (const [query, status, retry, retryAfter] of rows) {
    const answer = await fetch(scope.url(`/fault?${query}`))
    const code = new URLSearchParams(query).get('code')
    assert.equal(answer.status, status)
    assert.deepEqual(await answer.json(), { code, message: `as asked: ${code}`, retry })
    assert.equal(answer.headers.get('retry-after'), retryAfter)
  }
})

test('a bug of ours answers 500 without its text, and is logged with it', async () => {
  await using scope = await httpProxyScope()
  const answer = await fetch(scope.url('/fault?code=nonsense'))
  assert.equal(answer.status, 500)
  assert.doesNotMatch(await answer.text(), /secret/)
  assert.match(JSON.stringify(scope.log.lines), /unexpected error in a call/)
})

test('unknown functions, the root and other targets are 404, also in the background; a broken escape is 400', async () => {
  await using scope = await httpProxyScope()
  for (const path of ['/', '/nobody', '/echoes', '//echo', '/?x']) {
    const answer = await fetch(scope.url(path), { headers: { 'x-tinyfaas-async': 'yes' } })
    assert.equal(answer.status, 404, path)
    assert.equal(await codeOf(answer), 'FUNCTION_UNKNOWN')
  }
  assert.deepEqual(scope.invoker.accepted, [])
  const broken = await send(scope.url('/inspect/%zz'), 'GET')
  assert.equal(broken.status, 400)
  assert.match(broken.body, /"code":"REQUEST_INVALID"/)
})

test('X-tinyFaaS-Async with any value answers 202 at once and without a body, the body being whole; empty means nothing', async () => {
  await using scope = await httpProxyScope()
  for (const body of ['small', patterned(300_000)]) {
    const answer = await fetch(scope.url('/slow?ms=60000'), {
      method: 'POST',
      body,
      headers: { 'X-TinyFaaS-Async': 'x' },
    })
    assert.equal(answer.status, 202)
    assert.equal(await answer.text(), '')
    const accepted = scope.invoker.accepted.at(-1)
    assert.equal(accepted?.protocol, 'async')
    assert.ok(Buffer.isBuffer(accepted.body) && accepted.body.equals(Buffer.from(body)))
  }
  const now = await fetch(scope.url('/echo'), {
    method: 'POST',
    body: 'now',
    headers: { 'X-TinyFaaS-Async': '' },
  })
  assert.equal(now.status, 200)
  assert.equal(scope.invoker.accepted.length, 2)
})

test('the caller sets a deadline and a request id; unusable ones are refused or replaced', async () => {
  await using scope = await httpProxyScope()
  const answer = await fetch(scope.url('/inspect'), {
    headers: { 'x-shoal-deadline-ms': '1500', 'x-request-id': 'my-id' },
  })
  const told = await toldBy(answer)
  assert.equal(told.deadlineMs, 1500)
  assert.equal(told.requestId, 'my-id')
  assert.equal(answer.headers.get('x-request-id'), 'my-id')
  for (const wrong of ['0', '-1', '1.5', 'soon', '']) {
    const refused = await fetch(scope.url('/inspect'), {
      headers: { 'x-shoal-deadline-ms': wrong },
    })
    assert.equal(refused.status, 400, wrong)
  }
  const long = await fetch(scope.url('/inspect'), { headers: { 'x-request-id': 'x'.repeat(129) } })
  assert.match((await toldBy(long)).requestId, /^[0-9a-f]{32}$/)
  assert.equal((await toldBy(await fetch(scope.url('/inspect')))).deadlineMs, undefined)
})

test('HEAD, 204 and 304 have no body, and 200 to a HEAD tells the length that GET would have', async () => {
  await using scope = await httpProxyScope()
  const head = await send(scope.url('/bytes?bytes=4000'), 'HEAD')
  assert.equal(head.status, 200)
  assert.deepEqual(head.fields('content-length'), ['4000'])
  assert.equal(head.body, '')
  const streamed = await send(scope.url('/pieces'), 'HEAD')
  assert.equal(streamed.body, '')
  for (const status of [204, 205, 304]) {
    const answer = await send(scope.url(`/status?status=${status}&body=unsent`), 'GET')
    assert.equal(answer.status, status)
    assert.equal(answer.body, '')
  }
})

test('a function whose answer HTTP cannot carry is a bad answer, not a broken connection', async () => {
  await using scope = await httpProxyScope()
  const rows = [
    'status=100',
    'status=99',
    'status=600',
    'header=x%20y=1',
    'header=x=a%00b',
    'header=x=%E2%82%AC',
  ]
  for (const query of rows) {
    const answer = await fetch(scope.url(`/status?${query}`))
    assert.equal(answer.status, 502, query)
    assert.equal(await codeOf(answer), 'FUNCTION_BAD_ANSWER')
  }
})

test('an answer that breaks off in the middle ends the connection, so the caller sees that it is incomplete', async () => {
  await using scope = await httpProxyScope()
  await assert.rejects(async () => {
    const answer = await fetch(scope.url('/pieces?count=3&ms=10&fail=1'))
    await answer.text()
  }, /terminated/)
})

test('a caller that goes away aborts the call: before the answer, inside it, and inside its own body', async () => {
  await using scope = await httpProxyScope()
  const controller = new AbortController()
  const gone = fetch(scope.url('/slow?ms=60000'), { signal: controller.signal })
  await eventually(() => scope.invoker.running === 1)
  controller.abort()
  await assert.rejects(gone)
  assert.equal((await scope.invoker.aborted()).aborted, true)

  const reader = new AbortController()
  const answer = await fetch(scope.url('/pieces?count=1000000&bytes=1000&ms=1'), {
    signal: reader.signal,
  })
  await answer.body?.getReader().read()
  reader.abort()
  await scope.invoker.aborted()

  const upload = httpRequest(scope.url('/echo'), { method: 'POST' })
  upload.on('error', () => undefined)
  upload.write(patterned(100_000))
  await eventually(() => scope.invoker.seen.length === 3)
  upload.destroy()
  await scope.invoker.aborted()
  await eventually(() => scope.invoker.running === 0)
})

test('a reader that is slow makes the function wait', async () => {
  await using scope = await httpProxyScope()
  const before = produced.bytes
  const answer = await fetch(scope.url('/pieces?count=2000&bytes=65536'))
  const reader = answer.body?.getReader()
  await reader?.read()
  await new Promise((resolve) => setTimeout(resolve, 300))
  assert.ok(produced.bytes - before < 30_000_000, `${produced.bytes - before} bytes of 131,072,000`)
  await reader?.cancel()
})

test('a function that does not read makes the caller wait, and its answer comes through all the same', async () => {
  await using scope = await httpProxyScope({ bodyBytesMax: 60_000_000 })
  using raw = await RawTcp.connect(scope.proxy.port)
  raw.write('POST /sip?ms=3000 HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n')
  raw.write(Buffer.alloc(50_000_000))
  await eventually(() => scope.invoker.running === 1)
  await new Promise((resolve) => setTimeout(resolve, 300))
  const taken = raw.socket.bytesWritten - raw.socket.writableLength
  assert.ok(raw.socket.writableLength > 25_000_000, `${taken} bytes were taken`)
  await raw.until(/^HTTP\/1\.1 200 .*enough$/s)
  // What nobody wanted is read away, and the connection goes on.
  raw.write('POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nnext')
  await raw.until(/next$/, 10_000)
})

test('ten streams at once, both ways, do not mix', async () => {
  await using scope = await httpProxyScope()
  const answers = await Promise.all(
    Array.from({ length: 10 }, async (_, index) => {
      const body = Buffer.alloc(500_000, String(index))
      const answer = await fetch(scope.url('/stream'), { method: 'POST', body })
      return Buffer.from(await answer.arrayBuffer()).equals(body)
    }),
  )
  assert.deepEqual(
    answers,
    Array.from({ length: 10 }, () => true),
  )
})

interface Sent {
  status: number
  body: string
  fields(name: string): string[]
}

/** `fetch` refuses some methods and folds repeated fields; this does neither. */
function send(url: string, method: string, body?: string): Promise<Sent> {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }
    const request = httpRequest(url, { method, headers }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => (text += chunk))
      response.on('error', reject)
      response.on('end', () => {
        const raw = response.rawHeaders
        resolve({
          status: response.statusCode ?? 0,
          body: text,
          fields: (name) =>
            raw.filter((_, at) => at % 2 === 1 && raw[at - 1]?.toLowerCase() === name),
        })
      })
    })
    request.on('error', reject)
    request.end(body)
  })
}
