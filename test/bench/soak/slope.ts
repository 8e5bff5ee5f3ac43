/** A measure over time. `atMs` counts from any fixed moment. */
export interface Point {
  readonly atMs: number
  readonly value: number
}

/** How much a measure may rise. Both must be exceeded: noise of a short run gives steep slopes, and small ones. */
export interface Bound {
  /** In a run of up to an hour. The longer one is, the less of its slope is noise: in ten hours or more a tenth of it. */
  readonly perHour: number
  /** What the fitted line must rise from the warm-up's end to the run's. */
  readonly inRun: number
}

export interface Trend {
  readonly first: number
  readonly last: number
  readonly max: number
  readonly perHour: number
  /** Standard error of `perHour`. */
  readonly error: number
  /** Of the fitted line, between the first point and the last. */
  readonly inRun: number
  readonly rises: boolean
}

const HOUR_MS = 3_600_000

/**
 * The line of least squares through the points, and whether it rises beyond the bound: by more than what it may, twice the slope's
 * own error aside. Pure. Fewer than three points have no trend: slope and error are 0.
 */
export function trend(points: readonly Point[], bound: Bound): Trend {
  const values = points.map(({ value }) => value)
  const { slope, error, hours } = fit(points)
  const inRun = slope * hours
  const perHourMax = bound.perHour / Math.min(10, Math.max(1, hours))
  return {
    first: values[0] ?? Number.NaN,
    last: values.at(-1) ?? Number.NaN,
    max: Math.max(...values),
    perHour: rounded(slope),
    error: rounded(error),
    inRun: rounded(inRun),
    rises: slope - 2 * error > perHourMax && inRun > bound.inRun,
  }
}

/** Slope and its standard error per hour, and the hours that the points span. */
function fit(points: readonly Point[]): { slope: number; error: number; hours: number } {
  const count = points.length
  if (count < 3) return { slope: 0, error: 0, hours: 0 }
  const xs = points.map(({ atMs }) => atMs / HOUR_MS)
  const xMean = xs.reduce((sum, x) => sum + x, 0) / count
  const yMean = points.reduce((sum, { value }) => sum + value, 0) / count
  let xx = 0
  let xy = 0
  let yy = 0
  for (const [at, { value }] of points.entries()) {
    const x = (xs[at] ?? 0) - xMean
    const y = value - yMean
    xx += x * x
    xy += x * y
    yy += y * y
  }
  if (xx === 0) return { slope: 0, error: 0, hours: 0 }
  const slope = xy / xx
  const left = Math.max(0, yy - slope * xy)
  const error = Math.sqrt(left / (count - 2) / xx)
  return { slope, error, hours: Math.max(...xs) - Math.min(...xs) }
}

function rounded(value: number): number {
  return Number(value.toFixed(3))
}
