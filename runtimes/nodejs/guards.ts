/** Type guards for what comes from outside, and Node's fast but untyped ways between bytes and text. */
declare global {
  interface Buffer {
    latin1Slice(start: number, end: number): string
    utf8Slice(start: number, end: number): string
    utf8Write(text: string, start: number): number
  }
}

export type Fields = Readonly<Record<string, unknown>>

/** True for anything that has properties to be read. */
export function hasFields(value: unknown): value is Fields {
  return (typeof value === 'object' && value !== null) || typeof value === 'function'
}

export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return hasFields(value) && typeof value['then'] === 'function'
}

/** The value as an error. */
export function asError(value: unknown): Error {
  return value instanceof Error ? value : new Error(String(value))
}

/** Text, or the empty string for anything else. */
export function asText(value: unknown): string {
  return typeof value === 'string' ? value : ''
}
