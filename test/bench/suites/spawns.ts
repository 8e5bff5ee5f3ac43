import { Type } from 'typebox'
import { Value } from 'typebox/value'
import { withRatios } from '../harness/alternate.ts'
import type { Plan, Question, Row } from '../harness/model.ts'
import { runScript } from '../harness/script.ts'

const Spread = Type.Object({ median: Type.Number(), min: Type.Number(), max: Type.Number() })
const Output = Type.Object({
  programs: Type.Array(
    Type.Object({ program: Type.String(), perSecond: Type.Record(Type.String(), Spread) }),
  ),
})

/** A process per call, beside how fast a program in C or Go starts the same program in the same container. */
export async function spawns({ rounds, secondsPerRound }: Plan): Promise<Question[]> {
  const args = ['--rounds', String(rounds), '--seconds', String(secondsPerRound)]
  const { programs } = Value.Parse(Output, await runScript('spawn.ts', args))
  const rows = programs.flatMap(({ program, perSecond }) =>
    Object.entries(perSecond).map(([name, found]): Row => ({
      group: program,
      name: NAMES[name] ?? name,
      ...found,
    })),
  )
  const title = 'A process per call'
  return [{ id: 'spawns', title, unit: 'starts/s', better: 'more', rows: withRatios(rows) }]
}

/** `bare`: what ratios are taken to. */
const NAMES: Readonly<Record<string, string>> = {
  calls: 'calls of the function',
  c: 'bare: started from C, same input and output',
  go: 'started from Go, same input and output',
  'c-null': 'started from C, no input and output',
}
