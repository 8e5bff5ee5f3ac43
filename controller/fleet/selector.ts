import { Fault } from '#shared/fault.ts'
import type { Arch, Labels } from '#shared/schemas/names.ts'

const TERMS_MAX = 64
const KEY = /^[A-Za-z0-9_.-]{1,63}$/
const VALUE = /^[A-Za-z0-9_.-]{0,63}$/
const NODE_ID = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/

export type SelectorTerm =
  | { readonly kind: 'equal'; readonly key: string; readonly value: string }
  | { readonly kind: 'unequal'; readonly key: string; readonly value: string }

/** All terms must hold; no terms: every node. */
export type Selector = readonly SelectorTerm[]

/** What a selector looks at. */
export interface Selectable {
  readonly id: string
  readonly arch: Arch
  readonly labels: Labels
}

/**
 * Reads `*`, or a comma list of `key=value`, `key!=value` and bare node ids. Spaces around a term do not count.
 *
 * @throws Fault `REQUEST_INVALID` that names the term and its position, counted from 1
 */
export function parseSelector(text: string): Selector {
  if (text.trim() === '*') return []
  const terms: SelectorTerm[] = []
  let position = 1
  for (const piece of text.split(',')) {
    const start = position + (piece.length - piece.trimStart().length)
    terms.push(parseTerm(piece.trim(), start, text))
    position += piece.length + 1
  }
  if (terms.length > TERMS_MAX) {
    throw refusal(text, 1, `has ${terms.length} terms, at most ${TERMS_MAX} are allowed`)
  }
  return terms
}

export function matches(selector: Selector, node: Selectable): boolean {
  return selector.every((term) => {
    const equal = valueOf(node, term.key) === term.value
    return term.kind === 'equal' ? equal : !equal
  })
}

function valueOf(node: Selectable, key: string): string | undefined {
  // These two are the node's own, whatever its labels say.
  if (key === 'id') return node.id
  if (key === 'arch') return node.arch
  return Object.hasOwn(node.labels, key) ? node.labels[key] : undefined
}

function parseTerm(term: string, at: number, text: string): SelectorTerm {
  if (term === '') throw refusal(text, at, 'wants a term here: `key=value`, `key!=value` or a node')
  if (term === '*') throw refusal(text, at, '`*` stands alone')
  const equals = term.indexOf('=')
  if (equals === -1) {
    if (!NODE_ID.test(term)) {
      throw refusal(text, at, `\`${term}\` is neither \`key=value\` nor a node id`)
    }
    return { kind: 'equal', key: 'id', value: term }
  }
  const unequal = equals > 0 && term[equals - 1] === '!'
  const key = term.slice(0, unequal ? equals - 1 : equals).trimEnd()
  const rest = term.slice(equals + 1)
  const value = rest.trim()
  if (!KEY.test(key)) {
    throw refusal(text, at, `\`${key}\` is no label name: 1 to 63 of A-Z a-z 0-9 _ . -`)
  }
  if (!VALUE.test(value)) {
    const valueAt = at + equals + 1 + (rest.length - rest.trimStart().length)
    throw refusal(text, valueAt, `\`${value}\` is no label value: up to 63 of A-Z a-z 0-9 _ . -`)
  }
  return { kind: unequal ? 'unequal' : 'equal', key, value }
}

function refusal(text: string, position: number, why: string): Fault {
  const shown = text.length > 80 ? `${text.slice(0, 80)}...` : text
  return new Fault('REQUEST_INVALID', `selector "${shown}", character ${position}: ${why}`, {
    field: 'selector',
    position,
  })
}
