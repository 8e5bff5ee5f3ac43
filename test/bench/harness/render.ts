import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { shortTurns } from './alternate.ts'
import { chart, count } from './chart.ts'
import type { Question, Results, Row } from './model.ts'
import { verdicts } from './targets.ts'

const ROOT = join(import.meta.dirname, '../../..')
const BEGIN = '<!-- bench:begin -->'
const END = '<!-- bench:end -->'
const FOLDER = 'test/bench/results'

/** Writes the charts, and the tables between the two marks in README.md. @throws Error when a mark is missing */
export async function render(results: Results): Promise<void> {
  const file = join(ROOT, 'README.md')
  const readme = await readFile(file, 'utf8')
  const begin = readme.indexOf(BEGIN)
  const end = readme.indexOf(END)
  if (begin === -1 || end < begin) throw new Error(`README.md lacks ${BEGIN} ... ${END}`)
  for (const question of results.questions) {
    await writeFile(join(ROOT, FOLDER, `${question.id}.svg`), chart(question))
  }
  const text = `${readme.slice(0, begin + BEGIN.length)}\n\n${tables(results)}\n\n${readme.slice(end)}`
  await writeFile(file, text)
}

/** Pure: the results as Markdown. */
export function tables(results: Results): string {
  const { command, machine, questions } = results
  const { cores, memoryGiB, node, rounds, secondsPerRound, date, load, minutes, stolenPercent } =
    machine
  const http = shortTurns({ rounds: Number(rounds), secondsPerRound: Number(secondsPerRound) })
  return [
    `\`${command}\` on ${date}, ${minutes} minutes: ${cores} cores shared with the load generators, ${memoryGiB} GiB, Node ${node}, load average ${load} at the start, ${stolenPercent} % of the processor time taken by`,
    `other guests of its host; medians (least to most) of ${rounds} alternating rounds of ${secondsPerRound} s, HTTP with 100 bytes and CoAP with 32 calls in flight of ${http.rounds} of ${http.secondsPerRound} s, overload of ${http.rounds} of ${secondsPerRound} s. Read the ratios: \`x\` is the ratio to the bare server in the same rounds.`,
    '',
    ...targetTable(results),
    ...questions.flatMap((question) => ['', ...table(question)]),
  ].join('\n')
}

function targetTable(results: Results): string[] {
  return [
    line(['Target', 'wanted', 'in this run', '']),
    line(['---', '---', '---', '---']),
    ...verdicts(results).map(({ what, wanted, measured, met }) =>
      line([what, wanted, measured, met ? 'met' : '**not met**']),
    ),
  ]
}

function table({ id, title, unit, better, rows }: Question): string[] {
  const has = (key: keyof Row): boolean => rows.some((row) => row[key] !== undefined)
  const columns: { readonly head: string; readonly cell: (row: Row) => string }[] = [
    { head: '', cell: ({ group }) => group },
    { head: title, cell: ({ name }) => name },
    {
      head: `${unit} (${better} is better)`,
      cell: ({ median, min, max }) => `${count(median)} (${count(min)} to ${count(max)})`,
    },
    ...(has('ratio') ? [{ head: 'x', cell: ({ ratio }: Row) => ratio?.toFixed(2) ?? '' }] : []),
    ...(has('p50Ms')
      ? [
          { head: 'p50 ms', cell: ({ p50Ms }: Row) => p50Ms?.toFixed(2) ?? '' },
          { head: 'p99 ms', cell: ({ p99Ms }: Row) => p99Ms?.toFixed(2) ?? '' },
        ]
      : []),
    ...(has('errors') ? [{ head: 'errors', cell: ({ errors }: Row) => String(errors ?? '') }] : []),
  ]
  return [
    line(columns.map(({ head }) => head)),
    line(columns.map((_, at) => (at < 2 ? '---' : '---:'))),
    ...rows.map((row) => line(columns.map(({ cell }) => cell(row)))),
    '',
    `![${title}](${FOLDER}/${id}.svg)`,
  ]
}

function line(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`
}
