import assert from 'node:assert/strict'
import { it } from 'node:test'
import { MemoryTrim } from '#agent/memory/index.ts'

it('memory is given back at the first quiet look after work, and once', (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  let cpuMs = 0
  let collected = 0
  const collect = (): void => {
    collected++
    cpuMs += 60
  }
  const trim = new MemoryTrim({ collect, cpuMs: () => cpuMs, everyMs: 1_000 })
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
  const trim = new MemoryTrim({ collect: () => collected++, cpuMs: () => cpuMs, everyMs: 1_000 })
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
