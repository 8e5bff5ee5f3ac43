import { Type } from 'typebox'
import { Value } from 'typebox/value'
import type { Question, Row } from '../harness/model.ts'
import { runScript } from '../harness/script.ts'

const Times = Type.Object({ median: Type.Number(), min: Type.Number(), max: Type.Number() })
const Starts = Type.Object({ open: Times, firstAnswer: Times })
const Memory = Type.Object({ rssMiB: Type.Number() })
const Output = Type.Object({
  startMs: Type.Object({ bundle: Starts, source: Starts }),
  memory: Type.Object({
    afterStart: Memory,
    underLoad: Memory,
    afterLoad: Memory,
    idleAgain: Memory,
    idleCpuPercent: Type.Number(),
  }),
  limited: Type.Object({
    survived: Type.Boolean(),
    group: Type.Object({
      limitMiB: Type.Number(),
      peakMiB: Type.Number(),
      oomKills: Type.Number(),
    }),
  }),
})
const ARGS = [
  '--only',
  'start,memory,limit',
  '--rounds',
  '3',
  '--load-seconds',
  '3',
  '--idle-seconds',
  '30',
]

/** What an agent with 20 functions costs: its start on what is on the disk, its memory, its processor time when idle. */
export async function cost(): Promise<Question[]> {
  const { startMs, memory, limited } = Value.Parse(Output, await runScript('cost.ts', ARGS))
  const starts = Object.entries(startMs).flatMap(([from, { open, firstAnswer }]): Row[] => [
    { group: from, name: 'ports open', ...open },
    { group: from, name: 'first answer', ...firstAnswer },
  ])
  const sizes = POINTS.map(([when, name]) =>
    single('resident memory, 20 functions', name, memory[when].rssMiB),
  )
  const idle = single('of one core, full health reporting', 'idle', memory.idleCpuPercent)
  const { survived, group } = limited
  const peak = single(`limit of ${group.limitMiB} MiB`, 'most at once', group.peakMiB)
  const errors = survived ? 0 : group.oomKills || 1
  return [
    {
      id: 'agent-start',
      title: 'Start of an agent with 20 functions',
      unit: 'ms',
      better: 'less',
      rows: starts,
    },
    { id: 'agent-memory', title: 'Memory of an agent', unit: 'MiB', better: 'less', rows: sizes },
    {
      id: 'agent-idle',
      title: 'Processor time of an idle agent',
      unit: '%',
      better: 'less',
      rows: [idle],
    },
    {
      id: 'agent-limited',
      title: 'Agent with little memory, under every kind of load',
      unit: 'MiB, page cache included',
      better: 'less',
      rows: [{ ...peak, errors }],
    },
  ]
}

const POINTS = [
  ['afterStart', 'after the start'],
  ['underLoad', 'under load'],
  ['afterLoad', 'right after the load'],
  ['idleAgain', 'idle again'],
] as const

function single(group: string, name: string, value: number): Row {
  return { group, name, median: value, min: value, max: value }
}
