import { randomUUID } from 'node:crypto'

const USABLE = /^[\x21-\x7e]{1,128}$/

/** The caller's own request id when it is printable and short, else a new one. */
export function requestIdOf(given: string | undefined): string {
  return given !== undefined && USABLE.test(given) ? given : randomUUID()
}
