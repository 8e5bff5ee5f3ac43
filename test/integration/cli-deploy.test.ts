import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { it } from 'node:test'
import { extract } from 'tar-stream'
import { Fault } from '#shared/fault.ts'
import type { RolloutState } from '#shared/schemas/api.ts'
import { ApiPeer } from '#test/api-peer.ts'
import { apiNode, apiRollout, rolloutNodes as nodes } from '#test/api-views.ts'
import { shoal } from '#test/shoal-cli.ts'
import { tempFolder, type TempFolder } from '#test/temp.ts'

async function functionFolder(): Promise<TempFolder> {
  const folder = await tempFolder()
  await mkdir(folder.join('thermo/node_modules/x'), { recursive: true })
  await mkdir(folder.join('thermo/lib'))
  await writeFile(folder.join('thermo/index.js'), 'module.exports = 1')
  await writeFile(folder.join('thermo/lib/tool'), 'x', { mode: 0o755 })
  await writeFile(folder.join('thermo/notes.txt'), 'mine')
  await writeFile(folder.join('thermo/.shoalignore'), 'notes.*\n')
  await writeFile(folder.join('thermo/node_modules/x/index.js'), 'x')
  return folder
}

async function tarNames(content: Buffer): Promise<string[]> {
  const reader = extract()
  reader.end(content)
  const names: string[] = []
  for await (const entry of reader) {
    names.push(`${entry.header.name}${(entry.header.mode & 0o100) === 0 ? '' : '*'}`)
    entry.resume()
  }
  return names
}

it('fn deploy packs, builds, rolls out, follows to the end and says how to call it', async () => {
  await using peer = await ApiPeer.start()
  await using folder = await functionFolder()
  peer.nodes = [apiNode('n1')]
  peer.buildLines = ['installing', 'done installing']
  peer.snapshots = [
    { state: 'rolling', nodes: nodes('applying', 'pending') },
    { state: 'done', nodes: nodes('ready', 'ready') },
  ]
  const settings = ['--replicas', '3', '--env', 'A=1', '--env', 'B=x=y', '--memory', '1g']
  const more = [
    '--cpus',
    '0.5',
    '--timeout',
    '5s',
    '--network',
    'outbound',
    '--nodes',
    'site=north',
    '--replicas-max',
    '5',
    '--idle',
    '90s',
    '--isolation',
    'single',
    '--idempotent',
  ]
  const ran = await shoal(peer, ['fn', 'deploy', folder.join('thermo'), ...settings, ...more])
  assert.equal(ran.code, 0, ran.err)
  assert.equal(ran.err, '')
  assert.match(
    ran.out,
    /^deploying thermo: 2 files, 19 B\n {2}installing\n {2}done installing\nrelease r1-abababab \(nodejs/,
  )
  assert.match(ran.out, /rollout ro-1 to 2 nodes \("site=north"\)/)
  assert.match(ran.out, / {2}n1 {2}applying\n(.*\n)* {2}n1 {2}ready\n {2}n2 {2}ready\ndone after/)
  assert.match(ran.out, /call it:\n {2}shoal fn invoke thermo/)
  const upload = peer.call('POST', '/v1/functions/thermo/releases')
  assert.equal(upload.headers['content-type'], 'application/x-tar')
  assert.deepEqual(await tarNames(upload.body), ['index.js', 'lib*', 'lib/tool*'])
  assert.deepEqual(JSON.parse(peer.call('POST', '/v1/rollouts').body.toString()), {
    function: 'thermo',
    release: 'r1-abababab',
    selector: 'site=north',
    settings: {
      replicas: 3,
      replicasMax: 5,
      idleMs: 90_000,
      isolation: 'single',
      idempotent: true,
      env: { A: '1', B: 'x=y' },
      memoryMiB: 1024,
      cpus: 0.5,
      timeoutMs: 5000,
      network: 'outbound',
    },
  })
})

it('fn deploy --json prints one document on stdout; the build log goes to stderr', async () => {
  await using peer = await ApiPeer.start()
  await using folder = await functionFolder()
  peer.buildLines = ['installing']
  peer.snapshots = [{ state: 'done', nodes: nodes('ready') }]
  const name = ['--name', 'site/thermo', '--runtime', 'nodejs']
  const ran = await shoal(peer, ['fn', 'deploy', folder.join('thermo'), ...name, '--json'])
  assert.equal(ran.code, 0)
  assert.match(ran.err, /installing/)
  const document: { function: string; cached: boolean; rollout: { state: string } } = JSON.parse(
    ran.out,
  )
  assert.deepEqual(Object.keys(document), ['function', 'release', 'cached', 'rollout'])
  assert.equal(document.function, 'site/thermo')
  assert.equal(document.rollout.state, 'done')
  const upload = peer.call('POST', '/v1/functions/site%2Fthermo/releases')
  assert.equal(upload.query.get('runtime'), 'nodejs')
})

const OUTCOMES: [RolloutState, number][] = [
  ['done', 0],
  ['failed', 1],
  ['aborted', 2],
  ['timed-out', 3],
  ['waiting', 4],
]

for (const [state, code] of OUTCOMES) {
  it(`a rollout that ends as ${state} ends the deployment with exit code ${code}`, async () => {
    await using peer = await ApiPeer.start()
    await using folder = await functionFolder()
    peer.snapshots = [{ state, nodes: nodes('ready', 'offline') }]
    const ran = await shoal(peer, ['fn', 'deploy', folder.join('thermo')])
    assert.equal(ran.code, code)
    assert.match(ran.out, new RegExp(`^${state} after .* 1 of 2 nodes ready`, 'm'))
  })
}

it('fn deploy --no-wait returns at once and says how to follow', async () => {
  await using peer = await ApiPeer.start()
  await using folder = await functionFolder()
  const ran = await shoal(peer, ['fn', 'deploy', folder.join('thermo'), '--no-wait'])
  assert.equal(ran.code, 0)
  assert.match(ran.out, /shoal rollout status ro-1 --watch/)
  assert.ok(peer.calls.every((call) => !call.path.endsWith('/watch')))
})

it('a failed build ends with 1, its code and a hint, and no rollout', async () => {
  await using peer = await ApiPeer.start()
  await using folder = await functionFolder()
  peer.buildLines = ['npm error 404 no such package']
  peer.buildFault = new Fault('BUILD_FAILED', 'npm ended with exit code 1')
  const ran = await shoal(peer, ['fn', 'deploy', folder.join('thermo')])
  assert.equal(ran.code, 1)
  assert.match(ran.out, /no such package/)
  assert.match(ran.err, /^shoal: BUILD_FAILED: npm ended with exit code 1\n {2}hint: /)
  assert.doesNotMatch(ran.err, /\n {4}at /)
  assert.ok(peer.calls.every((call) => call.path !== '/v1/rollouts'))
  const debug = await shoal(peer, ['--debug', 'fn', 'deploy', folder.join('thermo')])
  assert.match(debug.err, /\n {4}at /)
})

it('a controller that breaks off and comes back is followed on', async () => {
  await using peer = await ApiPeer.start()
  await using folder = await functionFolder()
  peer.snapshots = [{ state: 'done', nodes: nodes('ready') }]
  let cuts = 0
  peer.override = (call, response) => {
    if (!call.path.endsWith('/watch') || cuts > 0) return false
    cuts += 1
    response.write(`${JSON.stringify(apiRollout({ nodes: nodes('applying') }))}\n`, () =>
      response.destroy(),
    )
    return true
  }
  const ran = await shoal(peer, ['fn', 'deploy', folder.join('thermo')])
  assert.equal(ran.code, 0, ran.err)
  assert.equal(cuts, 1)
})

it('Ctrl+C while following ends with 130 and says that the rollout goes on', async () => {
  await using peer = await ApiPeer.start()
  await using folder = await functionFolder()
  const off = new AbortController()
  peer.override = (call, response) => {
    if (!call.path.endsWith('/watch')) return false
    response.write('\n')
    off.abort()
    return true
  }
  const ran = await shoal(peer, ['fn', 'deploy', folder.join('thermo')], { signal: off.signal })
  assert.equal(ran.code, 130)
  assert.match(ran.err, /goes on: shoal rollout status ro-1 --watch/)
})

it('what is no function folder is refused before anything is sent', async () => {
  await using peer = await ApiPeer.start()
  await using folder = await functionFolder()
  const refused = async (...args: string[]) => {
    const ran = await shoal(peer, ['fn', 'deploy', ...args])
    assert.equal(ran.code, 1)
    return ran.err
  }
  assert.match(await refused(folder.join('none')), /BUNDLE_INVALID: there is no folder/)
  assert.match(await refused(folder.join('thermo/index.js')), /is a file: name the folder/)
  assert.match(
    await refused(folder.join('thermo/node_modules'), '--name', 'a b'),
    /--name.*invalid/,
  )
  await mkdir(folder.join('empty'))
  assert.match(await refused(folder.join('empty')), /holds no files/)
  await mkdir(folder.join('not a name'))
  await writeFile(folder.join('not a name/index.js'), '')
  assert.match(await refused(folder.join('not a name')), /pass --name/)
  assert.match(
    await refused(folder.join('thermo'), '--replicas', '65'),
    /whole number from 0 to 64/,
  )
  assert.deepEqual(peer.calls, [])
})
