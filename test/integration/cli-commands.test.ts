import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { it } from 'node:test'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { runCli } from '#controller/cli/index.ts'
import { ApiPeer } from '#test/api-peer.ts'
import { apiFunction, apiNode, apiRollout, rolloutNodes as nodes } from '#test/api-views.ts'
import { shoal } from '#test/shoal-cli.ts'
import { tempFolder } from '#test/temp.ts'

it('fn invoke prints the body as it is, and passes method, path, query and headers', async () => {
  await using peer = await ApiPeer.start()
  peer.functions.set('site/a', apiFunction('site/a'))
  const args = ['--method', 'put', '--path', '/x/y?u=c', '--header', 'X-Lab: 7', '--node', 'n1']
  const ran = await shoal(peer, ['fn', 'invoke', 'site/a', '--data', 'hi', ...args])
  assert.deepEqual(ran, { code: 0, out: 'PUT /x/y hi', err: '' })
  const call = peer.call('PUT', '/v1/functions/site%2Fa/invoke/x/y')
  assert.equal(call.headers['x-lab'], '7')
  assert.equal(call.query.get('u'), 'c')
  assert.equal(call.query.get('node'), 'n1')
  const piped = await shoal(peer, ['fn', 'invoke', 'site/a', '-'], { stdin: 'from stdin' })
  assert.equal(piped.out, 'POST / from stdin')
})

it('fn invoke: an error of the function is its body on stdout and its status on stderr', async () => {
  await using peer = await ApiPeer.start()
  peer.functions.set('a', apiFunction('a'))
  peer.override = (call, response) => {
    if (!call.path.includes('/invoke/')) return false
    response.writeHead(503, { 'shoal-node': 'n1' }).end('too hot')
    return true
  }
  assert.deepEqual(await shoal(peer, ['fn', 'invoke', 'a']), {
    code: 1,
    out: 'too hot',
    err: 'status 503 Service Unavailable\n',
  })
  peer.override = undefined
  const unknown = await shoal(peer, ['fn', 'invoke', 'b'])
  assert.equal(unknown.out, '')
  assert.match(unknown.err, /FUNCTION_UNKNOWN.*\n {2}hint: `shoal fn ls`/)
  const twice = await shoal(peer, ['fn', 'invoke', 'a', '-', '--data', 'x'])
  assert.match(twice.err, /give the body once/)
  const large = await shoal(peer, ['fn', 'invoke', 'a', '-'], { stdin: 'x'.repeat(800_000) })
  assert.match(large.err, /BODY_TOO_LARGE.*call the node directly/)
})

it('fn logs prints lines, follows until Ctrl+C, and gives JSON lines', async () => {
  await using peer = await ApiPeer.start()
  peer.functions.set('a', apiFunction('a'))
  const line = {
    node: 'n1',
    atMs: 1_700_000_000_000,
    fn: 'a',
    release: 'r2-abababab',
    handler: 'abcdefghijkl',
    level: 'warn' as const,
    text: 'too hot',
  }
  peer.logs = [line]
  const ran = await shoal(peer, ['fn', 'logs', 'a', '--tail', '5', '--node', 'n1'])
  assert.equal(ran.out, '2023-11-14T22:13:20.000Z n1/abcdefghijkl warn  too hot\n')
  assert.equal(peer.call('GET', '/v1/functions/a/logs').query.toString(), 'tail=5&follow=0&node=n1')
  const json = await shoal(peer, ['fn', 'logs', 'a', '--json'])
  assert.deepEqual(JSON.parse(json.out), line)
  const off = new AbortController()
  const followed = await shoal(peer, ['fn', 'logs', 'a', '-f'], {
    signal: off.signal,
    onOut: () => off.abort(),
  })
  assert.equal(followed.code, 0)
  assert.match(followed.out, /too hot/)
})

it('fn ls, show, rm and wipe', async () => {
  await using peer = await ApiPeer.start()
  assert.match((await shoal(peer, ['fn', 'ls'])).out, /no functions yet/)
  peer.functions.set('a', apiFunction('a')).set('b', apiFunction('b'))
  assert.match((await shoal(peer, ['fn', 'ls'])).out, /^a {5}nodejs/m)
  const list: { functions: unknown[] } = JSON.parse((await shoal(peer, ['fn', 'ls', '--json'])).out)
  assert.equal(list.functions.length, 2)
  assert.match((await shoal(peer, ['fn', 'show', 'a'])).out, /newest release r2-abababab/)
  assert.deepEqual(
    JSON.parse((await shoal(peer, ['fn', 'show', 'a', '--json'])).out),
    apiFunction('a'),
  )
  assert.equal((await shoal(peer, ['fn', 'rm', 'a'])).out, 'removed a\n')
  const careful = await shoal(peer, ['fn', 'wipe'])
  assert.equal(careful.code, 1)
  assert.match(careful.err, /\(now 1\).*--yes/)
  assert.equal((await shoal(peer, ['fn', 'wipe', '--yes'])).out, 'removed b\n')
  assert.match((await shoal(peer, ['fn', 'rm', 'a'])).err, /FUNCTION_UNKNOWN/)
})

it('a removal that some nodes have not confirmed is waiting', async () => {
  await using peer = await ApiPeer.start()
  peer.override = (call, response) => {
    if (call.method !== 'DELETE') return false
    response.end(JSON.stringify({ removed: ['a'], pending: ['n7'] }))
    return true
  }
  const ran = await shoal(peer, ['fn', 'rm', 'a'])
  assert.equal(ran.code, 4)
  assert.match(ran.out, /removed a\nnot confirmed yet \(offline or slow\): n7/)
})

it('node ls, show, rm and token', async () => {
  await using peer = await ApiPeer.start()
  peer.nodes = [apiNode('n1', { online: false })]
  assert.match((await shoal(peer, ['node', 'ls'])).out, /^n1 {4}offline/m)
  assert.match((await shoal(peer, ['node', 'show', 'n1'])).out, /agent: 0\.1\.0, engine docker/)
  assert.match((await shoal(peer, ['node', 'show', 'n2'])).err, /NODE_UNKNOWN.*\n.*shoal node ls/)
  assert.equal((await shoal(peer, ['node', 'rm', 'n1'])).out, 'removed n1\n')
  const token = await shoal(peer, ['node', 'token', '--ttl', '1h', '--uses', '2'])
  assert.equal(token.out, 'join-me\n')
  assert.match(token.err, /SHOAL_JOIN_TOKEN/)
  assert.deepEqual(JSON.parse(peer.call('POST', '/v1/tokens').body.toString()), {
    ttlMs: 3_600_000,
    uses: 2,
  })
})

it('rollout ls, status, watch and abort', async () => {
  await using peer = await ApiPeer.start()
  peer.rollouts.set('ro-1', apiRollout({ nodes: nodes('applying') }))
  assert.match((await shoal(peer, ['rollout', 'ls'])).out, /^ro-1 {5}thermo/m)
  const status = await shoal(peer, ['rollout', 'status', 'ro-1'])
  assert.equal(status.code, 4)
  assert.match(status.out, /n1 {2}applying/)
  peer.snapshots = [{ state: 'failed', nodes: nodes('failed'), reason: 'none serves it' }]
  const watched = await shoal(peer, ['rollout', 'status', 'ro-1', '--watch', '--json'])
  assert.equal(watched.code, 1)
  assert.match(watched.out, /"state":"failed"/)
  const aborted = await shoal(peer, ['rollout', 'abort', 'ro-1'])
  assert.equal(aborted.code, 0)
  assert.match(aborted.out, /^aborted after 1\.5 s/)
  assert.equal((await shoal(peer, ['rollout', 'status', 'ro-1'])).code, 2)
  assert.match((await shoal(peer, ['rollout', 'status', 'ro-9'])).err, /ROLLOUT_UNKNOWN/)
})

it('no controller, no token, a wrong token and another server each say what to do', async () => {
  await using peer = await ApiPeer.start()
  await using folder = await tempFolder()
  const nowhere = await shoal(peer, ['fn', 'ls', '--url', 'http://127.0.0.1:1'])
  assert.match(
    nowhere.err,
    /CONTROLLER_UNREACHABLE.*127\.0\.0\.1:1: .*REFUSED.*\n {2}hint: .*npm start.*\n +the address is from --url; SHOAL_DATA or/,
  )
  const none = await shoal(peer, ['fn', 'ls', '--data-folder', folder.path], {
    env: { SHOAL_API_TOKEN: '' },
  })
  assert.match(none.err, /UNAUTHENTICATED: no token: .*controller\/api-token is not there/)
  assert.match(
    (await shoal(peer, ['fn', 'ls', '--token', 'x'])).err,
    /UNAUTHENTICATED: wrong token/,
  )
  assert.match((await shoal(peer, ['--url', 'nonsense', 'fn', 'ls'])).err, /CONFIG_INVALID/)
  peer.override = (_, response) => {
    response.writeHead(200, { 'content-type': 'text/html' }).end('<html>')
    return true
  }
  assert.match((await shoal(peer, ['fn', 'ls'])).err, /is this the controller\?/)
  await mkdir(folder.join('controller'))
  await writeFile(folder.join('controller/api-token'), `${peer.token}\n`)
  peer.override = undefined
  const found = await shoal(peer, ['fn', 'ls', '--data-folder', folder.path], {
    env: { SHOAL_API_TOKEN: '' },
  })
  assert.equal(found.code, 0, found.err)
})

it('the controller is found by the data folder alone; settings that name another address win', async () => {
  await using peer = await ApiPeer.start()
  await using folder = await tempFolder()
  await mkdir(folder.join('controller'))
  await writeFile(folder.join('controller/address.json'), `{"api":"${peer.url}","nats":[]}\n`)
  const env = { SHOAL_API_URL: '', SHOAL_DATA: folder.path }
  const found = await shoal(peer, ['fn', 'ls'], { env })
  assert.equal(found.code, 0, found.err)
  const other = await shoal(peer, ['fn', 'ls'], { env: { ...env, SHOAL_API_PORT: '1' } })
  assert.match(other.err, /127\.0\.0\.1:1:[^]*the address is from SHOAL_API_PORT;/)
  await writeFile(folder.join('controller/address.json'), '{"api":"http://127.0.0.1:1","nats":[]}')
  const gone = await shoal(peer, ['fn', 'ls'], { env })
  assert.match(gone.err, /127\.0\.0\.1:1:[^]*the address is from .*controller\/address\.json;/)
})

it('doctor names each part and fails when one does', async () => {
  await using peer = await ApiPeer.start()
  await using folder = await tempFolder()
  peer.nodes = [apiNode('n1'), apiNode('n2', { online: false })]
  const env = {
    SHOAL_DATA: folder.path,
    SHOAL_NATS_URL: 'nats://127.0.0.1:1',
    SHOAL_DOCKER_SOCKET: '/none',
  }
  const ran = await shoal(peer, ['doctor', '--json'], { env })
  assert.equal(ran.code, 1)
  const document: { healthy: boolean; checks: { check: string; level: string }[] } = JSON.parse(
    ran.out,
  )
  assert.equal(document.healthy, false)
  const levels = Object.fromEntries(document.checks.map(({ check, level }) => [check, level]))
  assert.deepEqual(
    { ...levels, ports: 'any', disk: 'any' },
    {
      'data folder': 'ok',
      token: 'ok',
      controller: 'ok',
      NATS: 'fail',
      nodes: 'warn',
      engine: 'warn',
      images: 'fail',
      ports: 'any',
      disk: 'any',
    },
  )
  const text = await shoal(peer, ['doctor'], { env })
  assert.match(text.out, /^fail {2}NATS {9}nothing answers at 127\.0\.0\.1:1\n +-> /m)
})

it('usage errors end with 1, help with 0', async () => {
  await using peer = await ApiPeer.start()
  assert.equal((await shoal(peer, ['fn', 'nonsense'])).code, 1)
  assert.equal((await shoal(peer, ['fn', 'deploy'])).code, 1)
  const groupless = await shoal(peer, ['deploy', 'folder'])
  assert.equal(groupless.code, 1)
  assert.match(groupless.err, /unknown command 'deploy'[^]*hint: shoal fn deploy\n/)
  assert.doesNotMatch((await shoal(peer, ['nonsense'])).err, /hint/)
  const help = await shoal(peer, ['fn', 'deploy', '--help'])
  assert.equal(help.code, 0)
  assert.match(help.out, /--replicas <count>/)
  assert.match((await shoal(peer, ['--version'])).out, /^\d+\.\d+\.\d+/)
  assert.deepEqual(peer.calls, [])
})

it('a binary answer reaches stdout byte for byte', async () => {
  await using peer = await ApiPeer.start()
  const bytes = Buffer.from([0, 255, 10, 13, 128])
  peer.override = (_, response) => {
    response.writeHead(200, { 'shoal-node': 'n1' }).end(bytes)
    return true
  }
  const chunks: Buffer[] = []
  await runCli(['fn', 'invoke', 'a'], {
    out: {
      tty: false,
      columns: 80,
      write: (content) => void chunks.push(Buffer.from(content)),
      note() {},
    },
    stdin: Readable.from([]),
    env: { SHOAL_API_URL: peer.url, SHOAL_API_TOKEN: peer.token },
    signal: new AbortController().signal,
    nowMs: () => 0,
  })
  assert.deepEqual(await buffer(Readable.from(chunks)), bytes)
})
