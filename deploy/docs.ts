import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AgentConfig } from '#agent/config/index.ts'
import { ControllerConfig } from '#controller/config/index.ts'
import { FAULTS } from '#shared/fault.ts'

/**
 * README's reference tables, made from the schemas they describe: `npm run docs` writes them, `renderReadme` is pure and a test
 * compares.
 */
const SECTIONS: Readonly<Record<string, () => string>> = {
  faults: renderFaults,
  'agent-settings': () => renderSettings(AgentConfig),
  'controller-settings': () => renderSettings(ControllerConfig),
}

/** The text with every section between `<!-- name -->` and `<!-- /name -->` made anew. @throws Error when marks are missing */
export function renderReadme(text: string): string {
  let result = text
  for (const [name, render] of Object.entries(SECTIONS)) {
    const [begin, end] = [`<!-- ${name} -->`, `<!-- /${name} -->`]
    const from = result.indexOf(begin)
    const to = result.indexOf(end)
    if (from === -1 || to < from) throw new Error(`README.md lacks ${begin} ... ${end}`)
    result = `${result.slice(0, from + begin.length)}\n\n${render()}\n\n${result.slice(to)}`
  }
  return result
}

function renderFaults(): string {
  const rows = Object.entries(FAULTS).map(([code, { http, coap, grpc, retry }]) => [
    `\`${code}\``,
    String(http),
    coap,
    String(grpc),
    retry ? 'yes' : 'no',
  ])
  return markdownTable([['code', 'HTTP', 'CoAP', 'gRPC', 'retry'], ...rows])
}

interface ConfigSchema {
  readonly properties: Readonly<Record<string, object>>
}

function renderSettings({ properties }: ConfigSchema): string {
  const rows = Object.entries(properties).map(([key, schema]) => {
    const name = `SHOAL_${key.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`
    const standard: unknown = Reflect.get(schema, 'default')
    const description: unknown = Reflect.get(schema, 'description')
    const shown = Array.isArray(standard) ? standard.join(',') : String(standard)
    return [
      `\`${name}\``,
      standard === undefined || shown === '' ? '' : `\`${shown}\``,
      typeof description === 'string' ? description : '',
    ]
  })
  return markdownTable([['setting', 'default', 'what'], ...rows])
}

/** Padded as the formatter pads it, so that a fresh table is also a formatted one. */
function markdownTable(rows: readonly (readonly string[])[]): string {
  const columns = rows[0]?.length ?? 0
  const widths = Array.from({ length: columns }, (_, n) =>
    Math.max(3, ...rows.map((row) => row[n]?.length ?? 0)),
  )
  const line = (cells: readonly string[]) =>
    `| ${widths.map((width, n) => (cells[n] ?? '').padEnd(width)).join(' | ')} |`
  const [head = [], ...body] = rows
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...body.map(line)].join('\n')
}

if (import.meta.main) {
  const file = join(import.meta.dirname, '../README.md')
  await writeFile(file, renderReadme(await readFile(file, 'utf8')))
}
