import type { Round } from '../calls/load.ts'
import type { Plan, Row } from './model.ts'
import { rest } from './rest.ts'

export interface Contestant {
  readonly group: string
  readonly name: string
  /** One turn. */
  load(seconds: number): Promise<Round>
}

/**
 * About as much time in more and shorter turns, for what a bad moment of the machine changes most: of three turns it decides together
 * with another one, of five it takes three.
 */
export function shortTurns<T extends Pick<Plan, 'rounds' | 'secondsPerRound'>>(plan: T): T {
  const rounds = 2 * plan.rounds - 1
  // Load generators take whole seconds.
  const secondsPerRound = Math.ceil((plan.secondsPerRound * plan.rounds) / rounds)
  return { ...plan, rounds, secondsPerRound }
}

/**
 * All contestants, one turn after the other, round after round: what else the machine does hits them alike, those of one group and
 * of another.
 */
export async function alternate(plan: Plan, contestants: readonly Contestant[]): Promise<Row[]> {
  const found = contestants.map((one) => ({ one, rounds: Array.of<Round>() }))
  for (let round = 0; round < plan.rounds; round++) {
    for (const { one, rounds } of found) {
      await rest()
      const turn = await one.load(plan.secondsPerRound)
      rounds.push(turn)
      plan.say(`${one.group}, ${one.name}: ${turn.perSecond}/s, p99 ${turn.p99Ms} ms`)
    }
  }
  return withRatios(found.map(({ one, rounds }) => summary(one.group, one.name, rounds)))
}

function summary(group: string, name: string, rounds: readonly Round[]): Row {
  return {
    group,
    name,
    ...spread(rounds.map(({ perSecond }) => perSecond)),
    p50Ms: median(rounds.map(({ p50Ms }) => p50Ms)),
    p99Ms: median(rounds.map(({ p99Ms }) => p99Ms)),
    errors: rounds.reduce((sum, { errors }) => sum + errors, 0),
  }
}

/** Adds to each row its ratio to the group's yardstick. */
export function withRatios(rows: readonly Row[]): Row[] {
  return rows.map((row) => {
    const bare = rows.find(({ group, name }) => group === row.group && name.startsWith('bare'))
    if (bare === undefined || bare.median === 0) return row
    return { ...row, ratio: Number((row.median / bare.median).toFixed(3)) }
  })
}

export function spread(values: readonly number[]): Pick<Row, 'median' | 'min' | 'max'> {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) }
}

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN
}
