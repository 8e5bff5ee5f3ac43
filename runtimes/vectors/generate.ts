/**
 * Writes the shared test vectors of the frame protocol (`node runtimes/vectors/generate.ts && npx oxfmt runtimes/vectors`).
 *
 * The files: `frames.json` (valid frames, field by field), `heads.json` (heads alone), `streams.json` (byte streams and
 * what the receiver makes of them: nothing, or the protocol error that closes the connection).
 */
import { writeFileSync } from 'node:fs'
import { encode, headText, hexOf, list, text, type Fields } from './encode.ts'
import { FRAMES } from './frames.ts'
import { STREAMS } from './streams.ts'

const print = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`

function requestLine(fields: Fields): Record<string, string> {
  return {
    method: text(fields, 'method'),
    path: text(fields, 'path'),
    query: text(fields, 'query'),
  }
}

/** What every file of vectors says, as JSON text (the committed files are formatted besides). */
export function vectorFiles(): ReadonlyMap<string, string> {
  const frames = FRAMES.map((vector) =>
    Object.assign({}, vector, { hex: encode(vector).toString('hex') }),
  )
  const heads = FRAMES.filter(({ type }) => type === 'REQUEST' || type === 'RESPONSE').map(
    ({ name, type, fields }) =>
      Object.assign({ name, type }, type === 'REQUEST' ? requestLine(fields) : {}, {
        headers: list(fields, 'headers'),
        hex: hexOf(headText(fields)),
      }),
  )
  return new Map([
    ['frames.json', print(frames)],
    ['heads.json', print(heads)],
    ['streams.json', print(STREAMS)],
  ])
}

if (import.meta.main) {
  for (const [name, content] of vectorFiles()) {
    writeFileSync(new URL(name, import.meta.url), content)
  }
}
