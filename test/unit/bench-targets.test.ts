import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import type { Results } from '../bench/harness/model.ts'
import { verdicts } from '../bench/harness/targets.ts'

const file = new URL('../bench/results/bench.json', import.meta.url)
const results: Results = JSON.parse(readFileSync(file, 'utf8'))

/** The results with one figure of a row changed. */
function changed(of: Results, id: string, name: string, change: object): Results {
  const questions = of.questions.map((question) => ({
    ...question,
    rows: question.rows.map((row) =>
      question.id === id && row.name === name ? { ...row, ...change } : row,
    ),
  }))
  return { ...of, questions }
}

const metOf = (of: Results, what: string): boolean | undefined =>
  verdicts(of).find((verdict) => verdict.what === what)?.met

describe('the targets of the bench', () => {
  it('each finds its figures in the results that are committed', () => {
    for (const { what, measured } of verdicts(results)) assert.doesNotMatch(measured, /NaN/, what)
  })

  it('the worst contestant decides', () => {
    const what = 'CoAP confirmable, 32 in flight'
    const both = changed(changed(results, 'coap', 'node', { ratio: 2 }), 'coap', 'python', {
      ratio: 2,
    })
    assert.equal(metOf(both, what), true)
    assert.equal(metOf(changed(both, 'coap', 'python', { ratio: 1.99 }), what), false)
  })

  it('what has no figure is not met', () => {
    const without = changed(results, 'starts', 'unpause', { p99Ms: undefined })
    assert.equal(metOf(without, 'Unpause: p99'), false)
  })
})
