import { Type } from 'typebox'
import { Value } from 'typebox/value'
import type { Plan, Question, Row } from '../harness/model.ts'
import { runScript } from '../harness/script.ts'

const Output = Type.Object({
  results: Type.Array(
    Type.Object({
      name: Type.String(),
      minMs: Type.Number(),
      p50Ms: Type.Number(),
      p99Ms: Type.Number(),
      maxMs: Type.Number(),
    }),
  ),
})

/** From a bundle on the disk to the first answer, with and without a warm spare; sleeping and waking up. */
export async function starts({ rounds }: Plan): Promise<Question[]> {
  const { results } = Value.Parse(
    Output,
    await runScript('starts.ts', ['--rounds', String(rounds)]),
  )
  const rows = results.map(({ name, minMs, p50Ms, p99Ms, maxMs }): Row => {
    const [group = '', what = ''] = name.split(': ')
    return { group, name: what, median: p50Ms, min: minMs, max: maxMs, p50Ms, p99Ms }
  })
  const title = 'Starts, sleep and wake-up of a handler'
  return [{ id: 'starts', title, unit: 'ms', better: 'less', rows }]
}
