import { InvalidArgumentError } from 'commander'
import { Value } from 'typebox/value'
import type { FunctionSettings } from '#shared/schemas/command.ts'
import { FunctionName, RUNTIMES, type Runtime } from '#shared/schemas/names.ts'

/** Readers of option values; each says what it wants when it does not get it. */

export function integer(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (Number.isInteger(value) && value >= min && value <= max) return value
    throw new InvalidArgumentError(`a whole number from ${min} to ${max} is wanted.`)
  }
}

export function positive(text: string): number {
  const value = Number(text)
  if (Number.isFinite(value) && value > 0) return value
  throw new InvalidArgumentError('a number above 0 is wanted, e.g. 0.5.')
}

const DURATION_UNITS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
}

/** `500ms`, `30s`, `5m`, `2h`, `7d`; a bare number is seconds. To milliseconds. */
export function duration(text: string): number {
  const [, digits = '', unit = 's'] =
    /^(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)?$/.exec(text.trim()) ?? []
  const factor = DURATION_UNITS[unit]
  const value = digits === '' || factor === undefined ? Number.NaN : Number(digits) * factor
  if (value > 0) return Math.round(value)
  throw new InvalidArgumentError('a duration is wanted, e.g. 500ms, 30s, 5m or 2h.')
}

/** As `duration`; `never` is 0. */
export function durationOrNever(text: string): number {
  return text.trim() === 'never' ? 0 : duration(text)
}

/** `256`, `256m`, `256MiB`, `1g`. To MiB. */
export function memory(text: string): number {
  const match = /^(\d+)\s*(m|mb|mib|g|gb|gib)?$/i.exec(text.trim())
  const factor = match?.[2]?.toLowerCase().startsWith('g') === true ? 1024 : 1
  const value = Number(match?.[1] ?? Number.NaN) * factor
  if (value > 0) return value
  throw new InvalidArgumentError('an amount of memory is wanted, e.g. 256m or 1g (MiB, GiB).')
}

export function runtime(text: string): Runtime {
  const found = RUNTIMES.find((name) => name === text)
  if (found !== undefined) return found
  throw new InvalidArgumentError(`one of ${RUNTIMES.join(', ')} is wanted.`)
}

export function functionName(text: string): string {
  if (Value.Check(FunctionName, text)) return text
  throw new InvalidArgumentError(
    'a function name is 1 to 4 parts of letters, digits, "_", "." and "-", joined by "/".',
  )
}

export function network(text: string): 'none' | 'outbound' {
  if (text === 'none' || text === 'outbound') return text
  throw new InvalidArgumentError('none or outbound is wanted.')
}

export type Isolation = NonNullable<FunctionSettings['isolation']>

const ISOLATIONS = ['shared', 'single', 'fresh'] as const satisfies readonly Isolation[]

export function isolation(text: string): Isolation {
  const found = ISOLATIONS.find((name) => name === text)
  if (found !== undefined) return found
  throw new InvalidArgumentError(`one of ${ISOLATIONS.join(', ')} is wanted.`)
}

/** Collects `--env K=V ...`. `K` alone takes the value from the CLI's own environment. */
export function envPairs(
  ownEnv: Readonly<Record<string, string | undefined>>,
): (text: string, before: Readonly<Record<string, string>> | undefined) => Record<string, string> {
  return (text, before) => {
    const at = text.indexOf('=')
    const name = at === -1 ? text : text.slice(0, at)
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
      throw new InvalidArgumentError('NAME=value is wanted, NAME of letters, digits and "_".')
    }
    const value = at === -1 ? ownEnv[name] : text.slice(at + 1)
    if (value === undefined) {
      throw new InvalidArgumentError(`${name} is not set here; write ${name}=value.`)
    }
    return { ...before, [name]: value }
  }
}

/** Collects `--header 'name: value' ...`. */
export function headerPairs(
  text: string,
  before: Readonly<Record<string, string>> | undefined,
): Record<string, string> {
  const at = text.indexOf(':')
  const name = text.slice(0, Math.max(at, 0)).trim().toLowerCase()
  if (!/^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(name)) {
    throw new InvalidArgumentError('"name: value" is wanted.')
  }
  return { ...before, [name]: text.slice(at + 1).trim() }
}
