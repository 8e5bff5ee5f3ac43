import type { Point } from './slope.ts'

const WIDTH = 760
const PLOT = 110
const LEFT = 90
const RIGHT = 20
const HEAD = 40
const TITLE = 24

/** One plot under the other, all over the same time, each from 0 to its maximum. Pure: SVG as text. */
export function lineChart(
  title: string,
  series: readonly { readonly name: string; readonly points: readonly Point[] }[],
): string {
  const all = series.flatMap(({ points }) => points.map(({ atMs }) => atMs))
  const from = Math.min(...all)
  const to = Math.max(...all)
  const height = HEAD + series.length * (PLOT + TITLE) + 20
  const plots = series.map(({ name, points }, at) => {
    const y = HEAD + at * (PLOT + TITLE) + TITLE
    const top = Math.max(...points.map(({ value }) => value), Number.MIN_VALUE)
    const line = points.map(({ atMs, value }) => {
      const x = LEFT + ((atMs - from) / Math.max(1, to - from)) * (WIDTH - LEFT - RIGHT)
      return `${x.toFixed(1)},${(y + PLOT - (value / top) * PLOT).toFixed(1)}`
    })
    return [
      `<text x="${LEFT}" y="${y - 6}" font-weight="600">${name}</text>`,
      `<text x="${LEFT - 8}" y="${y + 10}" text-anchor="end">${Number(top.toPrecision(3))}</text>`,
      `<text x="${LEFT - 8}" y="${y + PLOT}" text-anchor="end">0</text>`,
      `<path d="M${LEFT} ${y}V${y + PLOT}H${WIDTH - RIGHT}" fill="none" stroke="#b0b7bf"/>`,
      `<polyline points="${line.join(' ')}" fill="none" stroke="#2b7bba" stroke-width="1.5"/>`,
    ].join('\n')
  })
  const minutes = ((to - from) / 60_000).toFixed(1)
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="13" fill="#11151a">`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    `<text x="12" y="24" font-size="15" font-weight="700">${title}, ${minutes} minutes</text>`,
    ...plots,
    '</svg>',
    '',
  ].join('\n')
}
