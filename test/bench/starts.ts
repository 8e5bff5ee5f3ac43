/**
 * Starts and sleeps of real handlers: how long until the first answer. Prints JSON; all times are milliseconds.
 *
 *     node test/bench/starts.ts [--rounds 12] [--engine docker] [--runtimes nodejs,python3,binary]
 *
 * In each round each contestant has one turn, so that what else the machine does hits them alike:
 * - container, spare: from a bundle on the disk to the first answer, without and with a warm spare; a spare with other limits than
 *   the function's has to be given them
 * - pause, unpause: `Handler.pause`, and `Handler.resume` up to the runner's PONG
 * - undo: from a kept, paused handler to its first answer
 */
import { cpus, release } from 'node:os'
import { parseArgs } from 'node:util'
import type { Handler } from '#agent/handlers/index.ts'
import type { Runtime } from '#shared/schemas/names.ts'
import { echoing, handlerScope, stocked } from '#test/handler-scope.ts'

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '12' },
    engine: { type: 'string', default: 'docker' },
    runtimes: { type: 'string', default: 'nodejs,python3,binary' },
  },
})
/** Sleeps and wake-ups in each round, every fourth with a call: they are quick, and a p99 needs a hundred. */
const SLEEPS = 46
const FILES_LARGE = 2_000
const FILES_PER_FOLDER = 20

const kind = values.engine === 'process' ? 'process' : 'docker'
await using scope = await handlerScope(kind)
const samples = new Map<string, number[]>()

for (const runtime of values.runtimes.split(',').filter(isRuntime)) await measure(runtime)
process.stdout.write(
  `${JSON.stringify(
    {
      node: process.version,
      cpu: cpus()[0]?.model,
      cores: cpus().length,
      kernel: release(),
      engine: kind,
      rounds: Number(values.rounds),
      results: Array.from(samples, ([name, ms]) => ({ name, ...summary(ms) })),
    },
    undefined,
    2,
  )}\n`,
)

async function measure(runtime: Runtime): Promise<void> {
  await using pool = scope.pool()
  const small = await scope.bundle(echoing(runtime, 'hello '))
  const large = await scope.bundle({ ...echoing(runtime, 'hello '), ...manyFiles() })
  const need = { wants: [await scope.want(runtime)], memoryMiBMax: 1_024, calm: true }
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const [bundle, size] of [
      [small, 'small'],
      [large, `${FILES_LARGE} files`],
    ] as const) {
      const cold = await scope.handler(runtime, bundle)
      await timed(`${runtime}, ${size}: container`, () => firstAnswer(cold))
      await cold.stop(AbortSignal.timeout(30_000))
      await stocked(pool, need, 1)
      const warm = await scope.handler(runtime, bundle, { pool })
      await timed(`${runtime}, ${size}: spare`, () => firstAnswer(warm))
      if (size === 'small') await sleeps(runtime, warm)
      await warm.stop(AbortSignal.timeout(30_000))
      if (size !== 'small') continue
      await stocked(pool, need, 1)
      const other = await scope.handler(runtime, bundle, { pool, limits: { cpus: 0.9 } })
      await timed(`${runtime}, ${size}: spare with other limits`, () => firstAnswer(other))
      await other.stop(AbortSignal.timeout(30_000))
    }
  }
}

async function firstAnswer(handler: Handler): Promise<void> {
  await handler.start()
  await answer(handler)
}

/** @throws Error when it is not the right one: a time of something that does not work is none */
async function answer(handler: Handler): Promise<void> {
  const text = await scope.call(handler, 'x')
  if (text !== 'hello x') throw new Error(`${handler.record.runtime} answered ${text}`)
}

async function sleeps(runtime: Runtime, handler: Handler): Promise<void> {
  for (let nth = 0; nth < SLEEPS; nth++) {
    await scope.drain(handler)
    await timed(`${runtime}: pause`, () => handler.pause(AbortSignal.timeout(30_000)))
    if (nth % 4 > 0) {
      await timed(`${runtime}: unpause`, () => handler.resume(AbortSignal.timeout(30_000)))
      await answer(handler)
    } else {
      await timed(`${runtime}: undo`, async () => {
        await handler.resume(AbortSignal.timeout(30_000))
        await answer(handler)
      })
    }
  }
}

async function timed(name: string, work: () => Promise<void>): Promise<void> {
  const startedAtMs = performance.now()
  await work()
  const tookMs = performance.now() - startedAtMs
  samples.set(name, [...(samples.get(name) ?? []), tookMs])
}

function summary(ms: readonly number[]): object {
  const sorted = ms.toSorted((a, b) => a - b)
  const at = (share: number): number => {
    const index = Math.min(sorted.length - 1, Math.floor(sorted.length * share))
    return Math.round((sorted[index] ?? 0) * 10) / 10
  }
  return { count: ms.length, minMs: at(0), p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) }
}

function manyFiles(): Record<string, string> {
  return Object.fromEntries(
    Array.from({ length: FILES_LARGE }, (_, index) => [
      `lib/d${Math.floor(index / FILES_PER_FOLDER)}/f${index}.txt`,
      'x'.repeat(500),
    ]),
  )
}

function isRuntime(name: string): name is Runtime {
  return name === 'nodejs' || name === 'python3' || name === 'binary'
}
