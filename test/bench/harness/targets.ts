import type { Results, Row } from './model.ts'

/** One of the figures that the project sets itself, and what the run has of it. */
export interface Verdict {
  readonly what: string
  readonly wanted: string
  /** Each contestant's, in words. */
  readonly measured: string
  readonly met: boolean
}

type Find = (id: string, group: string, name: string) => Row

interface Target {
  readonly what: string
  readonly wanted: readonly ['at least' | 'at most', number, unit: string]
  /** By contestant; the worst of them decides. */
  readonly values: (find: Find) => Readonly<Record<string, number>>
}

const BARE = 'bare node:http'
const LANGUAGES = ['node', 'python'] as const
const RUNTIMES = ['nodejs', 'python3', 'binary'] as const
const C = 'bare: started from C, same input and output'

function each<Name extends string>(
  names: readonly Name[],
  value: (name: Name) => number | undefined,
): Record<string, number> {
  return Object.fromEntries(names.map((name) => [name, value(name) ?? Number.NaN]))
}

const timesBare = (what: string, atLeast: number, id: string, group: string): Target => ({
  what,
  wanted: ['at least', atLeast, 'x bare'],
  values: (find) => each(LANGUAGES, (name) => find(id, group, name).ratio),
})

const p99TimesBare = (group: string) => (find: Find) =>
  each(LANGUAGES, (name) => p99(find('http', group, name)) / p99(find('http', group, BARE)))

const p99 = (row: Row): number => row.p99Ms ?? Number.NaN
const p50 = (row: Row): number => row.p50Ms ?? Number.NaN

const TARGETS: readonly Target[] = [
  timesBare('HTTP, 32 connections', 0.65, 'http', '32 connections'),
  timesBare('HTTP, 32 connections: with a front of our own', 1, 'http', '32 connections'),
  {
    what: 'HTTP, 32 connections: p99',
    wanted: ['at most', 3, "x bare's"],
    values: p99TimesBare('32 connections'),
  },
  {
    what: 'HTTP, 256 connections',
    wanted: ['at least', 0.85, 'x the rate with 32'],
    values: (find) =>
      each([...LANGUAGES, BARE], (name) => {
        const with32 = find('http', '32 connections', name).median
        return find('http', '256 connections', name).median / with32
      }),
  },
  {
    what: 'HTTP, 256 connections: p99',
    wanted: ['at most', 2, "x bare's"],
    values: p99TimesBare('256 connections'),
  },
  {
    what: 'HTTP, 1 connection: p50 above bare',
    wanted: ['at most', 0.1, 'ms'],
    values: (find) =>
      each(LANGUAGES, (name) => {
        const [ours, bare] = [name, BARE].map((one) => p50(find('http', '1 connection', one)))
        return (ours ?? Number.NaN) - (bare ?? Number.NaN)
      }),
  },
  timesBare('HTTP, bodies of 1 KiB', 0.65, 'bodies', '1 KiB, 32 connections'),
  timesBare('HTTP, bodies of 64 KiB', 0.6, 'bodies', '64 KiB, 8 connections'),
  timesBare('HTTP, bodies of 1 MiB', 0.5, 'bodies', '1 MiB, 4 connections'),
  timesBare('gRPC unary', 0.8, 'grpc', '8 connections with 4 streams'),
  timesBare('CoAP confirmable, 32 in flight', 2, 'coap', '32 in flight from 8 ports'),
  timesBare('CoAP confirmable, 128 in flight', 2, 'coap', '128 in flight from 8 ports'),
  {
    what: 'A process per call',
    wanted: ['at least', 0.85, 'x started from C'],
    values: (find) =>
      each(['sh script', 'static program'], (group) => {
        return (
          find('spawns', group, 'calls of the function').median / find('spawns', group, C).median
        )
      }),
  },
  {
    what: 'First answer from a bundle, without a spare: p50',
    wanted: ['at most', 600, 'ms'],
    values: (find) => each(RUNTIMES, (name) => p50(find('starts', `${name}, small`, 'container'))),
  },
  {
    what: 'First answer from a bundle, from a spare: p50',
    wanted: ['at most', 100, 'ms'],
    values: (find) => each(RUNTIMES, (name) => p50(find('starts', `${name}, small`, 'spare'))),
  },
  {
    what: 'Unpause: p99',
    wanted: ['at most', 30, 'ms'],
    values: (find) => each(RUNTIMES, (name) => p99(find('starts', name, 'unpause'))),
  },
  {
    what: 'Undo to a kept release: p50',
    wanted: ['at most', 100, 'ms'],
    values: (find) => each(RUNTIMES, (name) => p50(find('starts', name, 'undo'))),
  },
  {
    what: 'Overload: answered in time at 3 times the capacity',
    wanted: ['at least', 0.9, 'x the peak'],
    values: (find) => {
      const group = '8 calls at once of 20 ms each, deadline 500 ms'
      return each(['node'], () => {
        return find('overload-goodput', group, 'answered at 3 times as many').ratio
      })
    },
  },
  {
    what: 'Overload: p99 of the refusals',
    wanted: ['at most', 5, 'ms'],
    values: (find) =>
      each(['HTTP', 'gRPC', 'CoAP'], (name) => {
        const group = 'p99 of the calls refused at 3 times the capacity'
        return find('overload-refused', group, name).median
      }),
  },
  {
    what: 'Beside a neighbour: p99',
    wanted: ['at most', 2, 'x alone'],
    values: (find) =>
      each(['flooded', 'hangs', 'crashes'], (what) => {
        const name = what === 'flooded' ? 'beside one that is flooded' : `beside one that ${what}`
        return find('fairness', 'p99 of a function that works 15 ms, 100 calls/s', name).ratio
      }),
  },
  {
    what: 'Agent with 20 functions: start to first answer',
    wanted: ['at most', 500, 'ms'],
    values: (find) => each(['bundle'], () => find('agent-start', 'bundle', 'first answer').median),
  },
  {
    what: 'Agent with 20 functions: idle again after load',
    wanted: ['at most', 80, 'MiB'],
    values: (find) =>
      each(['bundle'], () => {
        return find('agent-memory', 'resident memory, 20 functions', 'idle again').median
      }),
  },
  {
    what: 'Agent with 20 functions: processor time when idle',
    wanted: ['at most', 1, '% of a core'],
    values: (find) =>
      each(['bundle'], () => {
        return find('agent-idle', 'of one core, full health reporting', 'idle').median
      }),
  },
  {
    what: 'Agent limited to 96 MiB, under every kind of load: ended by the kernel',
    wanted: ['at most', 0, 'times'],
    values: (find) =>
      each(['bundle'], () => find('agent-limited', 'limit of 96 MiB', 'most at once').errors),
  },
]

/** Pure: each target beside what the results have of it. @throws Error when they lack a row */
export function verdicts({ questions }: Results): Verdict[] {
  const find: Find = (id, group, name) => {
    const rows = questions.find((question) => question.id === id)?.rows
    const row = rows?.find((one) => one.group === group && one.name === name)
    if (row === undefined) throw new Error(`the results have no ${id}: ${group}, ${name}`)
    return row
  }
  return TARGETS.map(({ what, wanted: [bound, limit, unit], values }) => {
    const all = Object.entries(values(find))
    // The bare server's own is there to compare with.
    const ours = all.filter(([name]) => name !== BARE)
    return {
      what,
      wanted: `${bound} ${limit} ${unit}`,
      measured: all.map(([name, value]) => `${told(value)} ${name}`).join(', '),
      met: ours.every(([, value]) => (bound === 'at least' ? value >= limit : value <= limit)),
    }
  })
}

function told(value: number): string {
  return value >= 20 ? value.toFixed(0) : value.toFixed(2)
}
