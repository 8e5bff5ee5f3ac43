/** Where deploy talks to the person at the terminal. */
export interface Output {
  line(text: string): void
}

/** Lines to stdout. */
export const stdoutOutput: Output = {
  line(text) {
    process.stdout.write(`${text}\n`)
  },
}

/** `1.2 s` */
export function formatSeconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`
}

/** Rows in columns, two spaces apart, the first row a heading. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths: number[] = []
  for (const row of rows) {
    for (const [column, cell] of row.entries()) {
      widths[column] = Math.max(widths[column] ?? 0, cell.length)
    }
  }
  const text = rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  )
  return text.join('\n')
}
