import { setTimeout as sleep } from 'node:timers/promises'
import { loadCoap } from '../calls/load-coap.ts'
import { loadGrpc } from '../grpc/load.ts'
import { requestFrame } from '../grpc/messages.ts'
import { loadHttp } from '../calls/load-http.ts'
import { type BodyRound, manyBodies } from './many-bodies.ts'
import { median, type Round } from '../calls/load.ts'
import { MemoryGroup, type GroupFacts } from './memory-group.ts'
import type { NodeUnderTest, RunningAgent } from '#test/node-under-test.ts'
import { cpuMsOf, memoryOf, type Memory } from '#test/process-facts.ts'

const BODY = Buffer.alloc(100, 'x')
/** From the ready line to the first look at an agent that has nothing to do. */
const SETTLE_MS = 5_000
/** From the end of the load until nothing is done for it any more: garbage is collected at the first quiet look (agent/memory). */
const RESTED_MS = 15_000

/** Median, smallest and largest of several starts, ms. */
export interface Times {
  readonly median: number
  readonly min: number
  readonly max: number
}

export interface StartTimes {
  readonly open: Times
  readonly firstAnswer: Times
  readonly allAnswer: Times
}

export interface MemoryAndIdle {
  readonly afterStart: Memory
  readonly underLoad: Memory
  readonly afterLoad: Memory
  readonly idleAgain: Memory
  /** Of one core, while nothing is called, with heartbeats at their standard pace. */
  readonly idleCpuPercent: number
  readonly load: Readonly<Record<string, Round>>
}

export interface Limited {
  readonly survived: boolean
  readonly group: GroupFacts
  readonly idleAgain: Memory | undefined
  readonly load: Readonly<Record<string, Round>>
  /** 256 callers at once, with every answer looked at. */
  readonly bodies: Readonly<Record<string, BodyRound>>
}

/** Starts on what is on the disk, again and again; the handlers run all the time. */
export async function measureStarts(
  node: NodeUnderTest,
  command: readonly string[],
  rounds: number,
): Promise<StartTimes> {
  const starts: RunningAgent[] = []
  for (let round = 0; round < rounds; round++) {
    await using agent = await node.start(command)
    starts.push(agent)
    await agent.kill('SIGTERM')
  }
  const times = (pick: (agent: RunningAgent) => number): Times => {
    const all = starts.map(pick).map(Math.round)
    return { median: median(all), min: Math.min(...all), max: Math.max(...all) }
  }
  return {
    open: times(({ openMs }) => openMs),
    firstAnswer: times(({ firstAnswerMs }) => firstAnswerMs),
    allAnswer: times(({ allAnswerMs }) => allAnswerMs),
  }
}

/** Memory at each stage of a working day in small, and what idleness costs at its end. */
export async function measureMemory(
  node: NodeUnderTest,
  command: readonly string[],
  { loadMs, idleMs }: { readonly loadMs: number; readonly idleMs: number },
): Promise<MemoryAndIdle> {
  await using agent = await node.start(command)
  await sleep(SETTLE_MS)
  const afterStart = memoryOf(agent.pid)
  let underLoad = afterStart
  const watch = setInterval(() => {
    const now = memoryOf(agent.pid)
    if (now.rssMiB > underLoad.rssMiB) underLoad = now
  }, 250)
  const load: Record<string, Round> = {}
  try {
    for (const { name, run } of loads(agent, 32)) load[name] = await run(loadMs)
  } finally {
    clearInterval(watch)
  }
  const afterLoad = memoryOf(agent.pid)
  await sleep(RESTED_MS)
  const [cpuMs, startedMs] = [cpuMsOf(agent.pid), performance.now()]
  await sleep(idleMs)
  const usedMs = cpuMsOf(agent.pid) - cpuMs
  const idleCpuPercent = Number(((usedMs / (performance.now() - startedMs)) * 100).toFixed(2))
  const idleAgain = memoryOf(agent.pid)
  await agent.kill('SIGTERM')
  return { afterStart, underLoad, afterLoad, idleAgain, idleCpuPercent, load }
}

/** Every kind of load on an agent that may have `limitMiB` and no more; 256 connections, of 1 MiB bodies 32. */
export async function measureLimited(
  node: NodeUnderTest,
  command: readonly string[],
  { limitMiB, loadMs }: { readonly limitMiB: number; readonly loadMs: number },
): Promise<Limited> {
  await using group = MemoryGroup.create(limitMiB)
  await using agent = await node.start(group.join(command))
  const load: Record<string, Round> = {}
  for (const { name, run } of loads(agent, 256)) {
    try {
      load[name] = await run(loadMs)
    } catch {
      // The agent is gone; told below.
      break
    }
  }
  const bodies: Record<string, BodyRound> = {}
  for (const [name, path, bytes] of BODIES) {
    const { http: port } = agent.ports
    bodies[name] = await manyBodies({ port, path, connections: 256, bytes, durationMs: loadMs })
  }
  const alive = await Promise.race([agent.exited.then(() => false), sleep(SETTLE_MS, true)])
  const idleAgain = alive ? memoryOf(agent.pid) : undefined
  const facts = group.facts()
  await agent.kill('SIGTERM')
  return { survived: alive && facts.oomKills === 0, group: facts, idleAgain, load, bodies }
}

const BODIES = [
  ['64 KiB, node', '/echo-0', 64 * 1024],
  ['64 KiB, python', '/echo-1', 64 * 1024],
  ['1 MiB, node', '/echo-0', 1024 * 1024],
  ['1 MiB, python', '/echo-1', 1024 * 1024],
] as const

interface LoadKind {
  readonly name: string
  readonly run: (durationMs: number) => Promise<Round>
}

function loads({ ports }: RunningAgent, connections: number): readonly LoadKind[] {
  const http = (name: string, payload: Buffer, inFlight = connections): LoadKind => ({
    name,
    run: (durationMs) =>
      loadHttp({ port: ports.http, path: '/echo-0', payload, inFlight, durationMs }),
  })
  const other = { payload: BODY, inFlight: 32 }
  return [
    http('http 100 B', BODY),
    http('http 1 KiB', Buffer.alloc(1024, 'x')),
    http('http 64 KiB', Buffer.alloc(64 * 1024, 'x')),
    http('http 1 MiB', Buffer.alloc(1024 * 1024, 'x'), Math.min(connections, 32)),
    {
      name: 'coap 100 B',
      run: (durationMs) => loadCoap({ ...other, port: ports.coap, path: '/echo-0', durationMs }),
    },
    {
      name: 'grpc 100 B',
      run: (durationMs) =>
        loadGrpc({
          port: ports.grpc,
          service: 'shoal',
          frame: requestFrame('shoal', BODY.length, 'echo-0'),
          seconds: Math.ceil(durationMs / 1_000),
        }),
    },
  ]
}
