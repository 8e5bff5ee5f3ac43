/** What a field of a request holds, after Go's `encoding/json`. */
export type GoField = 'string' | 'int' | 'strings'

type GoValue<K extends GoField> = { string: string; int: number; strings: string[] }[K]
export type GoStruct<S extends Readonly<Record<string, GoField>>> = {
  -readonly [K in keyof S]: GoValue<S[K]>
}

/**
 * Decodes a request body as Go's `json.NewDecoder(body).Decode(&struct)` does, because that is what clients were tested
 * against: names of fields in any case, unknown fields ignored, `null` leaves the zero value, the last of equal names counts,
 * only the first JSON value of the body is read, wrong types are an error.
 *
 * @returns undefined for what Go would call an error
 */
export function decodeGoJson<S extends Readonly<Record<string, GoField>>>(
  text: string,
  fields: S,
): GoStruct<S> | undefined {
  const value = parseFirst(text)
  if (value === undefined) return undefined
  const result: Record<string, string | number | string[]> = {}
  for (const [name, kind] of Object.entries(fields)) result[name] = zero(kind)
  if (value !== null) {
    if (typeof value !== 'object' || Array.isArray(value)) return undefined
    for (const [key, given] of Object.entries(value)) {
      const name = Object.keys(fields).find((field) => field.toLowerCase() === key.toLowerCase())
      const kind = name === undefined ? undefined : fields[name]
      if (name === undefined || kind === undefined || given === null) continue
      const read = readField(kind, given)
      if (read === undefined) return undefined
      result[name] = read
    }
  }
  return isStruct(result, fields) ? result : undefined
}

function zero(kind: GoField): string | number | string[] {
  if (kind === 'string') return ''
  return kind === 'int' ? 0 : []
}

function readField(kind: GoField, value: unknown): string | number | string[] | undefined {
  if (kind === 'string') return typeof value === 'string' ? value : undefined
  if (kind === 'int') return Number.isSafeInteger(value) ? Number(value) : undefined
  if (!Array.isArray(value)) return undefined
  const items: unknown[] = value.map((item: unknown) => item ?? '')
  return items.every((item) => typeof item === 'string') ? items : undefined
}

function isStruct<S extends Readonly<Record<string, GoField>>>(
  value: object,
  fields: S,
): value is GoStruct<S> {
  return Object.keys(fields).every((name) => Object.hasOwn(value, name))
}

/** The first JSON value of a text; whatever follows it is not looked at. */
function parseFirst(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    const end = endOfFirst(text)
    if (end === undefined) return undefined
    try {
      return JSON.parse(text.slice(0, end))
    } catch {
      return undefined
    }
  }
}

/** Where the first value ends, when it is an object or `null`; nothing else is a request. */
function endOfFirst(text: string): number | undefined {
  const start = text.search(/[^ \t\r\n]/)
  if (text.startsWith('null', start)) return start + 4
  if (text[start] !== '{') return undefined
  let depth = 0
  const marks = /["{}[\]]/g
  marks.lastIndex = start
  for (let mark = marks.exec(text); mark !== null; mark = marks.exec(text)) {
    if (mark[0] === '"') {
      const end = endOfString(text, mark.index + 1)
      if (end === undefined) return undefined
      marks.lastIndex = end
    } else {
      depth += mark[0] === '{' || mark[0] === '[' ? 1 : -1
      if (depth === 0) return mark.index + 1
    }
  }
  return undefined
}

/** Behind the closing quote. Looks for quotes only, since strings here are megabytes of base64. */
function endOfString(text: string, from: number): number | undefined {
  for (let at = text.indexOf('"', from); at !== -1; at = text.indexOf('"', at + 1)) {
    let slashes = 0
    while (text[at - 1 - slashes] === '\\') slashes += 1
    if (slashes % 2 === 0) return at + 1
  }
  return undefined
}

/**
 * Decodes base64 as Go's `base64.StdEncoding` does: padded, no other characters than the alphabet and line ends.
 *
 * @returns undefined for what Go would call an error
 */
export function decodeGoBase64(text: string): Buffer | undefined {
  const joined = text.replaceAll(/[\r\n]/g, '')
  if (joined.length % 4 !== 0 || /[^A-Za-z0-9+/=]/.test(joined)) return undefined
  const padding = joined.endsWith('==') ? 2 : joined.endsWith('=') ? 1 : 0
  const content = Buffer.from(joined, 'base64')
  // Node's decoder skips what it does not like; then less comes out than should.
  return content.length === (joined.length / 4) * 3 - padding ? content : undefined
}
