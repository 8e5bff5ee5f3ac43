import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { it } from 'node:test'
import { pino } from 'pino'
import { buildApi, describeApi } from '#controller/api/index.ts'
import { splitUrl } from '../../controller/api/invoke-routes.ts'
import type { ApiError } from '#shared/schemas/api.ts'

const TOKEN = 'a-token-that-is-long-enough'
const authorization = `Bearer ${TOKEN}`
const METHODS = ['get', 'post', 'put', 'patch', 'delete', 'head', 'options'] as const
type Method = (typeof METHODS)[number]
const SECRET_DETAIL = 'secret detail'

/** Nothing behind it: what gets as far as the services is an unexpected error. */
const api = () =>
  buildApi({
    services: () => {
      throw new TypeError(SECRET_DETAIL)
    },
    token: TOKEN,
    log: pino({ level: 'silent' }),
  })

it('every route but four wants the token', async () => {
  await using app = await api()
  await app.ready()
  const described: { paths: Record<string, Partial<Record<Method, unknown>>> } = JSON.parse(
    await describeApi(),
  )
  const open: string[] = []
  let closed = 0
  for (const [path, methods] of Object.entries(described.paths)) {
    for (const method of METHODS) {
      if (methods[method] === undefined) continue
      const url = path.replaceAll(/\{[^}]+\}/g, 'x')
      for (const headers of [
        {},
        { authorization: `${authorization}x` },
        { authorization: TOKEN },
      ]) {
        const response = await app.inject({ method, url, headers })
        if (response.statusCode === 401) closed += 1
        else open.push(`${method} ${path}`)
      }
    }
  }
  assert.ok(closed > 40, `only ${closed} refusals seen`)
  assert.deepEqual([...new Set(open)].toSorted(), ['get /healthz', 'get /readyz', 'post /v1/join'])
  const unknown = await app.inject({ url: '/v1/nothing' })
  assert.equal(unknown.statusCode, 401, 'not even whether a route exists')
})

it('the committed description is fresh: run `node controller/api/openapi.ts`', async () => {
  const file = new URL('../../controller/api/openapi.json', import.meta.url)
  // The formatter may lay it out otherwise.
  assert.deepEqual(JSON.parse(await readFile(file, 'utf8')), JSON.parse(await describeApi()))
})

interface Refusal {
  readonly name: string
  readonly method?: 'GET' | 'POST' | 'DELETE'
  readonly url: string
  readonly body?: object | string
  readonly type?: string
  readonly status?: number
  readonly code?: ApiError['code']
  readonly says: readonly string[]
}
const rollout = (body: object): Pick<Refusal, 'method' | 'url' | 'body'> => ({
  method: 'POST',
  url: '/v1/rollouts',
  body,
})
const refusals: readonly Refusal[] = [
  { name: 'a missing field', ...rollout({}), says: ['function'] },
  { name: 'a field of the wrong type', ...rollout({ function: 3 }), says: ['function'] },
  {
    name: 'a setting out of bounds',
    ...rollout({ function: 'sieve', settings: { replicas: -1 } }),
    says: ['settings.replicas', '0'],
  },
  {
    name: 'an isolation that there is not',
    ...rollout({ function: 'sieve', settings: { isolation: 'total' } }),
    says: ['settings.isolation'],
  },
  {
    name: 'text is no number in a JSON body',
    ...rollout({ function: 'sieve', settings: { replicas: '2' } }),
    says: ['settings.replicas', 'integer'],
  },
  {
    name: 'an unknown setting',
    ...rollout({ function: 'sieve', settings: { replica: 2 } }),
    says: ['settings', 'replica'],
  },
  {
    name: 'an unknown field',
    ...rollout({ function: 'sieve', selectr: '*' }),
    says: ['selectr'],
  },
  { name: 'a name that is none', url: '/v1/functions/a%20b', says: ['name'] },
  { name: 'a name that climbs', url: '/v1/functions/a%2F..', says: ['name'] },
  { name: 'a name with too many parts', url: '/v1/functions/a%2Fb%2Fc%2Fd%2Fe', says: ['name'] },
  { name: 'a query out of bounds', url: '/v1/functions/a/logs?tail=-1', says: ['tail'] },
  { name: 'a query that is no number', url: '/v1/functions/a/logs?tail=x', says: ['tail'] },
  {
    name: 'an unknown runtime',
    method: 'POST',
    url: '/v1/functions/a/releases?runtime=cobol',
    type: 'application/x-tar',
    body: 'x',
    says: ['runtime'],
  },
  {
    name: 'a body type that is no source',
    method: 'POST',
    url: '/v1/functions/a/releases',
    type: 'text/plain',
    body: 'x',
    says: ['send an archive', 'application/x-tar'],
  },
  {
    name: 'a source URL that is none',
    method: 'POST',
    url: '/v1/functions/a/releases',
    body: { url: 'file:///etc/passwd' },
    says: ['body.url', 'application/x-tar'],
  },
  {
    name: 'JSON that is none',
    method: 'POST',
    url: '/v1/rollouts',
    type: 'application/json',
    body: '{',
    says: ['JSON'],
  },
  {
    name: 'a body beyond the limit',
    ...rollout({ function: 'sieve', selector: 'x'.repeat(1024 * 1024) }),
    status: 413,
    code: 'BODY_TOO_LARGE',
    says: ['too large'],
  },
  {
    name: 'a join without a key',
    method: 'POST',
    url: '/v1/join',
    body: { secret: 'x'.repeat(40), arch: 'amd64', labels: {} },
    says: ['nodeKey'],
  },
  {
    name: 'a route that is not there',
    url: '/v1/nothing',
    status: 404,
    code: 'NOT_FOUND',
    says: ['GET /v1/nothing'],
  },
]
for (const row of refusals) {
  it(`${row.name} is refused by name`, async () => {
    await using app = await api()
    const response = await app.inject({
      method: row.method ?? 'GET',
      url: row.url,
      headers: { authorization, ...(row.type === undefined ? {} : { 'content-type': row.type }) },
      ...(row.body === undefined ? {} : { payload: row.body }),
    })
    const body = response.json<ApiError>()
    assert.deepEqual(
      [response.statusCode, body.code, body.retry],
      [row.status ?? 400, row.code ?? 'REQUEST_INVALID', false],
    )
    for (const part of row.says) assert.ok(body.message.includes(part), body.message)
  })
}

it('an unexpected error keeps its detail in the log', async () => {
  const lines: string[] = []
  await using app = await buildApi({
    services: () => {
      throw new TypeError(SECRET_DETAIL)
    },
    token: TOKEN,
    log: pino({ level: 'error' }, { write: (line) => lines.push(line) }),
  })
  const response = await app.inject({ url: '/v1/nodes', headers: { authorization } })
  assert.equal(response.statusCode, 500)
  assert.deepEqual(response.json(), { code: 'INTERNAL', message: 'internal error', retry: false })
  assert.ok(lines.some((line) => line.includes(SECRET_DETAIL)))
})

const urls: readonly { url: string; path: string; query: string; wanted?: string }[] = [
  { url: '/v1/functions/a/invoke', path: '', query: '' },
  { url: '/v1/functions/a/invoke/', path: '', query: '' },
  { url: '/v1/functions/a%2Fb/invoke/x/y', path: '/x/y', query: '' },
  { url: '/v1/functions/a/invoke/x%2Fy//z', path: '/x%2Fy//z', query: '' },
  { url: '/v1/functions/a/invoke/invoke/x', path: '/invoke/x', query: '' },
  { url: '/v1/functions/a/invoke?a=1&b=%20', path: '', query: 'a=1&b=%20' },
  { url: '/v1/functions/a/invoke?node=n-1', path: '', query: '', wanted: 'n-1' },
  { url: '/v1/functions/a/invoke?x=?&node=n-1', path: '', query: 'x=?', wanted: 'n-1' },
  { url: '/v1/functions/a/invoke?node=mine&node=n-1', path: '', query: 'node=mine', wanted: 'n-1' },
  { url: '/v1/functions/a/invoke?nodes=2', path: '', query: 'nodes=2' },
]
for (const { url, ...parts } of urls) {
  it(`${url} is path "${parts.path}", query "${parts.query}"`, () => {
    assert.deepEqual(splitUrl(url), parts)
  })
}
