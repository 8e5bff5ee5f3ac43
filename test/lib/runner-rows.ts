import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { Runtime } from '#shared/schemas/names.ts'
import type { Answer, InitInput, RequestInput } from './runner-client.ts'
import { RunnerScope } from './runner-scope.ts'

/** A function's files by name. */
export type Files = Readonly<Record<string, string>>

interface Asked {
  readonly request?: RequestInput
  readonly init?: Partial<InitInput>
}

/** Loads a function and calls it once. */
async function ask(
  runtime: Runtime,
  fn: Files,
  { request = {}, init = {} }: Asked = {},
): Promise<Answer> {
  await using scope = await RunnerScope.start({ runtime, fn })
  const session = await scope.ready(init)
  const answer = await session.call(request)
  return answer
}

/** One call of one function, and what it answers. */
export interface Row extends Asked {
  readonly name: string
  readonly files: Files
  readonly text?: string
  readonly status?: number
  readonly error?: RegExp
  /** A header of the answer: name, value. */
  readonly header?: readonly [string, string]
}

/** One test per row. */
export function checkAnswers(runtime: Runtime, rows: readonly Row[]): void {
  for (const row of rows) {
    it(row.name, async () => {
      const answer = await ask(runtime, row.files, row)
      if (row.error !== undefined) {
        assert.match(answer.error?.text ?? 'no error', row.error)
        return
      }
      assert.equal(answer.error, undefined)
      assert.equal(answer.status, row.status ?? 200)
      if (row.text !== undefined) assert.equal(answer.text, row.text)
      if (row.header !== undefined) {
        const [name, value] = row.header
        assert.equal(answer.headers[answer.headers.indexOf(name) + 1], value)
      }
    })
  }
}
