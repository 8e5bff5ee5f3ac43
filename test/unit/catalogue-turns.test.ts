import assert from 'node:assert/strict'
import { it } from 'node:test'
import { Turns } from '#controller/catalogue/index.ts'
import { Fault } from '#shared/fault.ts'

const never = new AbortController().signal

it('work on one key runs one after the other, on different keys at the same time', async () => {
  const turns = new Turns(4)
  const gates = { a1: gate(), a2: gate(), b1: gate() }
  const events: string[] = []
  const work = (name: keyof typeof gates) => async () => {
    events.push(`${name} starts`)
    await gates[name].promise
    events.push(`${name} ends`)
    return name
  }
  const a1 = turns.take('a', work('a1'), never)
  const a2 = turns.take('a', work('a2'), never)
  const b1 = turns.take('b', work('b1'), never)
  gates.b1.resolve()
  gates.a2.resolve()
  assert.equal(await b1, 'b1')
  gates.a1.resolve()
  assert.deepEqual(await Promise.all([a1, a2]), ['a1', 'a2'])
  assert.deepEqual(events, ['a1 starts', 'b1 starts', 'b1 ends', 'a1 ends', 'a2 starts', 'a2 ends'])
})

it('a failure does not stop the line', async () => {
  const turns = new Turns(4)
  const bad = turns.take('a', () => Promise.reject(new Error('no')), never)
  const good = turns.take('a', () => Promise.resolve(1), never)
  await assert.rejects(bad, /no/)
  assert.equal(await good, 1)
})

it('who gives up while waiting never starts', async () => {
  const turns = new Turns(4)
  const first = gate()
  const running = turns.take('a', () => first.promise, never)
  const stop = new AbortController()
  let started = false
  const waiting = turns.take(
    'a',
    async () => {
      started = true
    },
    stop.signal,
  )
  stop.abort()
  first.resolve()
  await running
  await assert.rejects(waiting, (error: unknown) => Fault.is(error, 'CALLER_GONE'))
  assert.equal(started, false)
})

it('a line that is full refuses with CONFLICT, and only that line', async () => {
  const turns = new Turns(1)
  const first = gate()
  const running = turns.take('a', () => first.promise, never)
  const waiting = turns.take('a', () => Promise.resolve(), never)
  await assert.rejects(
    turns.take('a', () => Promise.resolve(), never),
    (error: unknown) => Fault.is(error, 'CONFLICT'),
  )
  await turns.take('b', () => Promise.resolve(), never)
  first.resolve()
  await Promise.all([running, waiting])
  await turns.take('a', () => Promise.resolve(), never)
})

function gate(): PromiseWithResolvers<void> {
  return Promise.withResolvers<void>()
}
