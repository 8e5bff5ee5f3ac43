import { STATUS_CODES } from 'node:http'

/** An answer without its body and without what the connection adds to it. */
export interface AnswerHead {
  readonly status: number
  /** Header fields, each with its line end. They say how long the body is, unless it is streamed. */
  readonly lines: string
  /** There is a `Date` among them. */
  readonly dated: boolean
}

/** Every answer begins with this, whatever it says. */
export const ANSWER_START = 'HTTP/1.1 '

/** `HTTP/1.1 200 OK\r\n` */
export function statusLine(status: number): string {
  const known = STATUS_LINES.get(status)
  if (known !== undefined) return known
  const line = `${ANSWER_START}${status} ${STATUS_CODES[status] ?? 'unknown'}\r\n`
  STATUS_LINES.set(status, line)
  return line
}

/** By status: at most the few hundred that an answer may have. */
const STATUS_LINES = new Map<number, string>()

/**
 * Header fields as lines, each with its line end.
 *
 * @throws TypeError when a name is not a token, or a value has a character that a field cannot carry
 */
export function fieldLines(headers: readonly string[]): string {
  let lines = ''
  for (let at = 0; at + 1 < headers.length; at += 2) {
    const name = headers[at] ?? ''
    const value = headers[at + 1] ?? ''
    if (!TOKEN.test(name)) throw new TypeError(`invalid name of a field: ${JSON.stringify(name)}`)
    if (UNSENDABLE.test(value)) throw new TypeError(`invalid character in the field ${name}`)
    lines += `${name}: ${value}\r\n`
  }
  return lines
}

/** RFC 9110 section 5.6.2. */
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
/** Anything but section 5.5's tab, visible characters, and the other half of Latin-1. */
// oxlint-disable-next-line no-control-regex
const UNSENDABLE = /[^\t\x20-\x7e\x80-\xff]/

/** `Date: Fri, 20 Nov 2026 23:59:59 GMT\r\n`, made once a second. */
export function dateLine(): string {
  if (dateLineNow === undefined) {
    const now = new Date()
    dateLineNow = `Date: ${now.toUTCString()}\r\n`
    setTimeout(forgetDate, 1_000 - now.getMilliseconds()).unref()
  }
  return dateLineNow
}

let dateLineNow: string | undefined

function forgetDate(): void {
  dateLineNow = undefined
}
