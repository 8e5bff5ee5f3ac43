import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Measured, Results } from './run.ts'

const README = join(import.meta.dirname, '../../../README.md')
const BEGIN = '<!-- bench:begin -->'
const END = '<!-- bench:end -->'

/** Puts the tables of `results` between the two marks in README.md. @throws Error when a mark is missing */
export async function renderReadme(results: Results): Promise<void> {
  const text = await readFile(README, 'utf8')
  const begin = text.indexOf(BEGIN)
  const end = text.indexOf(END)
  if (begin === -1 || end < begin) throw new Error(`README.md lacks ${BEGIN} ... ${END}`)
  const next = `${text.slice(0, begin + BEGIN.length)}\n\n${renderTables(results)}\n\n${text.slice(end)}`
  await writeFile(README, next)
}

/** Pure: the results as Markdown. */
export function renderTables({ command, machine, calls, deploy }: Results): string {
  const { cores, memoryGiB, node, rounds, secondsPerRound, httpLoad, date } = machine
  return [
    `\`${command}\` on ${date}: ${cores} cores shared with the load generator, ${memoryGiB} GiB, Node ${node}; 100-byte echo in real`,
    `containers, medians of ${rounds} alternating rounds of ${secondsPerRound} s; HTTP load by ${httpLoad}. Read the ratios.`,
    '',
    '| protocol | in flight | function | calls/s (min to max) | x bare | p50 ms | p99 ms | errors |',
    '| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |',
    ...calls.map(row),
    '',
    'Bare: an echo server of `node:http`, `coap` and `@grpc/grpc-js` with no container behind it.',
    '',
    '| `fn deploy` (already built) to first answer | median ms | all ms |',
    '| --- | ---: | --- |',
    ...deploy.map((one) => `| ${one.runtime} | ${one.medianMs} | ${one.allMs.join(', ')} |`),
  ].join('\n')
}

function row(one: Measured): string {
  const range = `${count(one.perSecond)} (${count(one.perSecondMin)} to ${count(one.perSecondMax)})`
  const cells = [one.protocol, one.inFlight, one.name, range, one.timesBare.toFixed(2)]
  return `| ${[...cells, one.p50Ms.toFixed(2), one.p99Ms.toFixed(2), one.errors].join(' | ')} |`
}

function count(value: number): string {
  return value.toLocaleString('en-US')
}
