import { type Answer, answerText, CODE } from './answer.ts'
import { uintOption } from './codec.ts'
import { OPTION } from './options.ts'

export const WELL_KNOWN_CORE = '.well-known/core'
const LINK_FORMAT = 40

/** The functions as links (RFC 6690); the filter `href=`, with `*` at its end, is understood, others match nothing. */
export function wellKnownCore(method: string, query: string, names: readonly string[]): Answer {
  if (method !== 'GET') return answerText(CODE.methodNotAllowed, 'only GET')
  const payload = names
    .filter((name) => matches(`/${name}`, query))
    .map((name) => `</${name}>;rt="shoal.function"`)
    .join(',')
  return {
    code: CODE.content,
    options: [uintOption(OPTION.contentFormat, LINK_FORMAT)],
    payload: Buffer.from(payload),
  }
}

function matches(href: string, query: string): boolean {
  if (query === '') return true
  return query.split('&').every((part) => {
    if (part === 'rt=shoal.function') return true
    if (!part.startsWith('href=')) return false
    const wanted = decodeURIComponent(part.slice(5))
    return wanted.endsWith('*') ? href.startsWith(wanted.slice(0, -1)) : href === wanted
  })
}
