import assert from 'node:assert/strict'
import { it } from 'node:test'
import { MemoryTrim } from '#agent/memory/index.ts'

const MIB = 1_048_576

it('memory is given back at the first quiet look after work, and once', (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  let cpuMs = 0
  let collected = 0
  const collect = (): void => {
    collected++
    cpuMs += 60
  }
  const trim = new MemoryTrim({ collect, cpuMs: () => cpuMs, events: () => 0, everyMs: 1_000 })
  /** One interval in which the process used `usedMs`. @returns how often it has collected so far */
  const interval = (usedMs: number): number => {
    cpuMs += usedMs
    t.mock.timers.tick(1_000)
    return collected
  }
  assert.equal(interval(5), 0, 'a start that was no work')
  assert.equal(interval(900), 0, 'at work')
  assert.equal(interval(300), 0, 'still at work')
  assert.equal(interval(5), 1)
  for (let n = 0; n < 49; n++) assert.equal(interval(5), 1, 'heartbeats are no work')
  trim[Symbol.dispose]()
})

it('a heartbeat now and then adds up to work in the end', (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  let cpuMs = 0
  let collected = 0
  const collect = (): void => void collected++
  const trim = new MemoryTrim({ collect, cpuMs: () => cpuMs, events: () => 0, everyMs: 1_000 })
  for (let n = 0; n < 51; n++) {
    cpuMs += 5
    t.mock.timers.tick(1_000)
  }
  assert.equal(collected, 1)
  trim[Symbol.dispose]()
  cpuMs += 1_000
  t.mock.timers.tick(5_000)
  assert.equal(collected, 1, 'not when it is closed')
})

it('under a trickle of calls it waits for a minute, and for something to give back', (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const now = { cpuMs: 1_000, events: 0, residentBytes: 80 * MIB, collected: 0 }
  const trim = new MemoryTrim({
    collect: () => {
      now.collected++
      now.residentBytes = 80 * MIB
    },
    cpuMs: () => now.cpuMs,
    events: () => now.events,
    residentBytes: () => now.residentBytes,
  })
  /** So many looks, with ten calls a second and 200 ms of work meanwhile. @returns how often it has collected so far */
  const looks = (count: number): number => {
    for (let n = 0; n < count; n++) {
      now.cpuMs += 200
      now.events += 200
      t.mock.timers.tick(5_000)
    }
    return now.collected
  }
  assert.equal(looks(11), 0)
  assert.equal(looks(1), 1, 'what the start has left')
  assert.equal(looks(100), 1, 'nothing to give back')
  now.cpuMs += 2_000
  now.residentBytes = 120 * MIB
  assert.equal(looks(12), 1, 'work: not calm for so long')
  assert.equal(looks(1), 2)
  assert.equal(looks(3), 2)
  t.mock.timers.tick(5_000)
  assert.equal(now.collected, 3, 'no calls: at once, grown or not')
  trim[Symbol.dispose]()
})
