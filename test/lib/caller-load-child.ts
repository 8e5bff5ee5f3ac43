import { Agent, request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import type { CallerLoad, CallRecord } from './caller-load.ts'

// A process of its own, so that what is measured is not the callers' own work. See caller-load.ts.

const load: CallerLoad = JSON.parse(process.argv[2] ?? '')
const agent = new Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY })
const records: CallRecord[] = []
const endsAtMs = performance.now() + load.durationMs

function call(): Promise<void> {
  const startedAtMs = performance.now()
  return new Promise((resolve) => {
    const ended = (status: number, retryAfter?: string): void => {
      const record = { status, tookMs: performance.now() - startedAtMs }
      records.push(retryAfter === undefined ? record : { ...record, retryAfter })
      resolve()
    }
    const { headers = {} } = load
    const sent = request(load.url, { method: 'POST', agent, headers }, (answer) => {
      answer.resume()
      answer.once('end', () => ended(answer.statusCode ?? 0, answer.headers['retry-after']))
      answer.once('error', () => ended(0))
    })
    sent.once('error', () => ended(0))
    sent.end('x')
  })
}

async function closedLoop(): Promise<void> {
  while (performance.now() < endsAtMs) await call()
}

async function openLoop(perSecond: number): Promise<void> {
  const beganAtMs = performance.now()
  const calls: Promise<void>[] = []
  while (performance.now() < endsAtMs) {
    const due = ((performance.now() - beganAtMs) / 1_000) * perSecond
    while (calls.length < due) calls.push(call())
    await sleep(1)
  }
  await Promise.race([Promise.all(calls), sleep(10_000, undefined, { ref: false })])
}

if (load.perSecond !== undefined) await openLoop(load.perSecond)
else await Promise.all(Array.from({ length: load.connections ?? 1 }, closedLoop))
agent.destroy()
process.send?.(records, undefined, undefined, () => process.disconnect())
