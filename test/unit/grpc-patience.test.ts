import assert from 'node:assert/strict'
import { it } from 'node:test'
import { ConnectionError } from '#agent/proxy/grpc/server/h2/format.ts'
import { Patience } from '#agent/proxy/grpc/server/h2/patience.ts'

const KEEPALIVE_MS = 60_000
const TIMEOUT_MS = 20_000
const LOOK_EVERY_MS = 5_000

/** Looks as a server does from when the peer is asked until it is given up, at most for ten minutes; returns the milliseconds. */
function patienceMs(frameAt: (ms: number) => boolean): number {
  const patience = new Patience(KEEPALIVE_MS, TIMEOUT_MS)
  const askedAtMs = Math.ceil(performance.now()) + KEEPALIVE_MS + 1
  assert.equal(patience.look(askedAtMs), 'ask')
  for (let ms = LOOK_EVERY_MS; ms <= 600_000; ms += LOOK_EVERY_MS) {
    if (frameAt(ms)) patience.heard()
    if (patience.look(askedAtMs + ms) === 'gone') return ms
  }
  return Number.POSITIVE_INFINITY
}

it('a peer is given up when it is silent, and not for ever spared for what it sends', () => {
  const rows: [what: string, frameAt: (ms: number) => boolean, ms: number][] = [
    ['silent', () => false, 25_000],
    ['one frame', (ms) => ms === 20_000, 45_000],
    ['a frame every 20 s', (ms) => ms % 20_000 === 0, 305_000],
    ['a frame every 5 s', () => true, 305_000],
    ['a frame every 30 s', (ms) => ms % 30_000 === 0, 25_000],
  ]
  for (const [what, frameAt, ms] of rows) assert.equal(patienceMs(frameAt), ms, what)
})

it('a peer that has answered is asked again later; what it sent before makes no difference', () => {
  const patience = new Patience(KEEPALIVE_MS, TIMEOUT_MS)
  const startMs = Math.ceil(performance.now())
  patience.heard()
  assert.equal(patience.look(startMs + 30_000), undefined)
  assert.equal(patience.look(startMs + 61_000), 'ask')
  patience.alive()
  assert.equal(patience.look(startMs + 59_000), undefined)
  assert.equal(patience.look(startMs + 62_000), 'ask')
  assert.equal(patience.look(startMs + 82_001), 'gone')
})

it('so many resets between two looks, and no more', () => {
  const patience = new Patience(KEEPALIVE_MS, TIMEOUT_MS)
  for (let n = 0; n < 2_500; n += 1) patience.spendReset()
  patience.look(performance.now())
  for (let n = 0; n < 2_500; n += 1) patience.spendReset()
  assert.throws(() => patience.spendReset(), ConnectionError)
})
