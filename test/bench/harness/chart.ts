import type { Question, Row } from './model.ts'

const WIDTH = 760
const LEFT = 250
const RIGHT = 150
const BAR = 18
const STEP = 24
const HEAD = 44
/** Readable on light and dark grounds, and by the colour-blind. */
const COLOURS = { ours: '#2b7bba', other: '#b0b7bf', spread: '#11151a' } as const

/** A horizontal bar per contestant, group under group, with a line from the least to the most. Pure: SVG as text. */
export function chart({ title, unit, better, rows }: Question): string {
  const groups = [...Map.groupBy(rows, ({ group }) => group)]
  const height = HEAD + groups.length * STEP + rows.length * STEP + 12
  const parts: string[] = []
  let y = HEAD
  for (const [group, ones] of groups) {
    parts.push(text(12, y + 14, group, 'font-weight="600"'))
    y += STEP
    // Each group has a scale of its own: what may be compared fills the width.
    const top = Math.max(...ones.map(({ max }) => max), Number.MIN_VALUE)
    for (const row of ones) {
      parts.push(...bar(row, y, (WIDTH - LEFT - RIGHT) / top))
      y += STEP
    }
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="13">`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    text(12, 24, `${title} (${unit}, ${better} is better)`, 'font-size="15" font-weight="700"'),
    ...parts,
    '</svg>',
    '',
  ].join('\n')
}

function bar(row: Row, y: number, scale: number): string[] {
  const { name, median, min, max, ratio } = row
  const isReference = /^(?:bare|classic|host)/.test(name)
  const colour = isReference ? COLOURS.other : COLOURS.ours
  const middle = y + BAR / 2
  const label = ratio === undefined ? count(median) : `${count(median)}  (${ratio.toFixed(2)} x)`
  return [
    text(LEFT - 10, y + 14, name, 'text-anchor="end"'),
    `<rect x="${LEFT}" y="${y}" width="${pixels(median * scale)}" height="${BAR}" fill="${colour}"/>`,
    `<path d="M${pixels(LEFT + min * scale)} ${middle}H${pixels(LEFT + max * scale)}" stroke="${COLOURS.spread}"/>`,
    text(pixels(LEFT + max * scale + 8), y + 14, label, ''),
  ]
}

function text(x: number, y: number, content: string, more: string): string {
  const escaped = content.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
  return `<text x="${x}" y="${y}" fill="#11151a" ${more}>${escaped}</text>`
}

function pixels(value: number): number {
  return Math.round(value * 10) / 10
}

/** `12,345`, or three digits of a small number. */
export function count(value: number): string {
  return value >= 100
    ? Math.round(value).toLocaleString('en-US')
    : String(Number(value.toPrecision(3)))
}
