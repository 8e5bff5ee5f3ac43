import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { symlink } from 'node:fs/promises'
import { resolve } from 'node:path'
import { it } from 'node:test'
import { text } from 'node:stream/consumers'
import { ApiPeer } from '#test/api-peer.ts'
import { apiFunction } from '#test/api-views.ts'
import { reapAtExit } from '#test/reaper.ts'
import { tempFolder } from '#test/temp.ts'

const SHOAL = resolve(import.meta.dirname, '../../controller/cli/shoal.mjs')
/** Makes a Node believe that it is an old one. */
const OLD =
  'data:text/javascript,Object.defineProperty(process,"versions",{value:{...process.versions,node:"20.20.2"}})'

interface Ended {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

async function run(peer: ApiPeer, args: readonly string[], stdin = ''): Promise<Ended> {
  const child = spawn(process.execPath, args, {
    env: { ...process.env, SHOAL_API_URL: peer.url, SHOAL_API_TOKEN: peer.token },
    stdio: 'pipe',
  })
  reapAtExit(child)
  child.stdin.end(stdin)
  const ended = once(child, 'close')
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)])
  await ended
  return { code: child.exitCode, out, err }
}

it('shoal runs as a program: output, exit code, and it ends by itself', async () => {
  await using peer = await ApiPeer.start()
  peer.functions.set('a', apiFunction('a'))
  const ran = await run(peer, [SHOAL, 'fn', 'ls'])
  assert.equal(ran.code, 0, ran.err)
  assert.match(ran.out, /^a {5}nodejs/m)
  assert.equal((await run(peer, [SHOAL, 'fn', 'show', 'b'])).code, 1)
})

it('an old Node goes on with the one of the checkout: arguments, stdin and exit code pass through', async () => {
  await using peer = await ApiPeer.start()
  peer.functions.set('a', apiFunction('a'))
  const ran = await run(peer, ['--import', OLD, SHOAL, 'fn', 'invoke', 'a', '-'], 'from stdin')
  assert.deepEqual(ran, { code: 0, out: 'POST / from stdin', err: '' })
  const failed = await run(peer, ['--import', OLD, SHOAL, 'fn', 'show', 'b'])
  assert.equal(failed.code, 1)
  assert.match(failed.err, /FUNCTION_UNKNOWN/)
})

it('it is found through a link, as npx and a global installation make one', async () => {
  await using peer = await ApiPeer.start()
  await using folder = await tempFolder()
  const link = folder.join('shoal')
  await symlink(SHOAL, link)
  for (const args of [[link], ['--import', OLD, link]]) {
    assert.match((await run(peer, [...args, '--version'])).out, /^\d+\.\d+\.\d+\n$/)
  }
})

it('SIGINT while it follows logs ends it with 0, also through an old Node', async () => {
  await using peer = await ApiPeer.start()
  peer.functions.set('a', apiFunction('a'))
  const line = { node: 'n1', atMs: 0, fn: 'a', release: 'r2-abababab', handler: 'h', level: 'info' }
  peer.logs = [{ ...line, level: 'info', text: 'hello' }]
  for (const [args, signal] of [
    [[SHOAL], 'SIGINT'],
    [['--import', OLD, SHOAL], 'SIGTERM'],
  ] as const) {
    const child = spawn(process.execPath, [...args, 'fn', 'logs', 'a', '-f'], {
      env: { ...process.env, SHOAL_API_URL: peer.url, SHOAL_API_TOKEN: peer.token },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    reapAtExit(child)
    const ended = once(child, 'close')
    await once(child.stdout, 'data')
    child.kill(signal)
    await ended
    assert.equal(child.exitCode, 0)
  }
})
