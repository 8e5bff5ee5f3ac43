/**
 * Both ends of the frame protocol against hostile peers, for as long as wanted: what the property tests do, with other seeds each time.
 *
 *     node test/bench/fuzz.ts [--minutes 5] [--only agent,nodejs,python3,python3-async,binary] [--seed 1]
 *
 * Subjects take turns of 50 rounds; each turn says its seed on stderr, and `--seed` begins with that one again. A failure is shown with
 * the frames that made it. Prints JSON on stdout; ends with 1 on a failure, or when a subject's memory passes its limit.
 */
import { parseArgs } from 'node:util'
import * as fc from 'fast-check'
import { AgentUnderFuzz } from '#test/agent-under-fuzz.ts'
import { agentMoves, cuts, runnerMoves } from '#test/frame-moves.ts'
import { FUZZED_RUNNERS, RunnerUnderFuzz } from '#test/runner-under-fuzz.ts'

const ROUNDS = 50
/** Of a runner, and of this process: in it are the agent's end, the hostile peers and the frames they make. */
const RESIDENT_MIB_MAX = 600

interface Subject extends AsyncDisposable {
  readonly name: string
  turn(parameters: fc.Parameters<unknown>): Promise<void>
  residentMiB(): Promise<number>
}

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '5' },
    only: { type: 'string' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
  },
})
const only = values.only?.split(',')
const endAtMs = performance.now() + Number(values.minutes) * 60_000

await using stack = new AsyncDisposableStack()
const subjects: Subject[] = []
if (only?.includes('agent') !== false) subjects.push(stack.use(await agentSubject()))
for (const runner of FUZZED_RUNNERS) {
  if (only?.includes(runner.fixture) === false) continue
  subjects.push(stack.use(runnerSubject(runner.fixture, await RunnerUnderFuzz.start(runner))))
}
if (subjects.length === 0) throw new Error(`no such subject: ${values.only}`)

const results = subjects.map((subject) => ({
  subject,
  rounds: 0,
  firstMiB: 0,
  mostMiB: 0,
  lastMiB: 0,
}))
let failure: string | undefined
for (let seed = Number(values.seed); performance.now() < endAtMs && failure === undefined; seed++) {
  for (const result of results) {
    const { subject } = result
    process.stderr.write(`${subject.name}: seed ${seed}\n`)
    try {
      await subject.turn({ seed, numRuns: ROUNDS, endOnFailure: true, includeErrorInReport: true })
    } catch (error) {
      failure = `${subject.name}, seed ${seed}: ${String(error)}`
      break
    }
    result.rounds += ROUNDS
    result.lastMiB = Math.round(await subject.residentMiB())
    result.firstMiB ||= result.lastMiB
    result.mostMiB = Math.max(result.mostMiB, result.lastMiB)
    if (result.lastMiB > RESIDENT_MIB_MAX) failure = `${subject.name} takes ${result.lastMiB} MiB`
  }
}
const told = results.map(({ subject, rounds, firstMiB, mostMiB, lastMiB }) => {
  return { name: subject.name, rounds, firstMiB, mostMiB, lastMiB }
})
process.stdout.write(`${JSON.stringify({ subjects: told, failure }, undefined, 2)}\n`)
process.exitCode = failure === undefined ? 0 : 1

async function agentSubject(): Promise<Subject> {
  const agent = await AgentUnderFuzz.start()
  const calls = fc.integer({ min: 0, max: 5 })
  const aborted = fc.oneof(
    { weight: 3, arbitrary: fc.constant([]) },
    { weight: 1, arbitrary: fc.uniqueArray(fc.integer({ min: 0, max: 4 }), { maxLength: 3 }) },
  )
  const round = fc.record({ moves: runnerMoves, cuts, calls, aborted })
  return {
    name: 'agent',
    turn: (parameters) =>
      fc.assert(
        fc.asyncProperty(round, (one) => agent.round(one)),
        parameters,
      ),
    residentMiB: () => Promise.resolve(process.memoryUsage.rss() / 2 ** 20),
    [Symbol.asyncDispose]: () => agent[Symbol.asyncDispose](),
  }
}

function runnerSubject(name: string, runner: RunnerUnderFuzz): Subject {
  const round = fc.record({ moves: agentMoves, cuts })
  return {
    name,
    turn: (parameters) =>
      fc.assert(
        fc.asyncProperty(round, (one) => runner.round(one)),
        parameters,
      ),
    residentMiB: () => runner.residentMiB(),
    [Symbol.asyncDispose]: () => runner[Symbol.asyncDispose](),
  }
}
