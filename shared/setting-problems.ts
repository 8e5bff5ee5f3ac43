/** What a validator says of one value: as much of it as is needed here. */
interface SchemaError {
  readonly keyword: string
  readonly instancePath: string
  readonly message: string
  readonly params: object
}

interface SettingSchemas {
  readonly properties: Readonly<Record<string, object>>
}

/** The settings without what a conversion would cut off: `1.5` is no whole number, and not 1. To be converted after this. */
export function markFractions(
  { properties }: SettingSchemas,
  raw: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const marked = Object.entries(raw).map(([key, value]) => {
    const whole = Reflect.get(properties[key] ?? {}, 'type') === 'integer'
    const cut = whole && typeof value === 'string' && !/^\s*[+-]?\d+\s*$/.test(value)
    return [key, cut ? Number.NaN : value] as const
  })
  return Object.fromEntries(marked)
}

/**
 * One text per setting that has a bad value, for people: `SHOAL_HTTP_PORT=x must be a whole number from -1 to 65535`.
 *
 * @param nameOf - the variable that a key was set by
 */
export function settingProblems(
  { properties }: SettingSchemas,
  errors: readonly SchemaError[],
  nameOf: (key: string) => string,
  env: Readonly<Record<string, string | undefined>>,
): string[] {
  const byKey = Map.groupBy(errors, ({ instancePath }) => instancePath.split('/')[1] ?? '')
  return [...byKey].map(([key, found]) => {
    const name = nameOf(key)
    return `${name}=${env[name] ?? ''} ${wish(properties[key] ?? {}, found)}`
  })
}

function wish(schema: object, errors: readonly SchemaError[]): string {
  const choices = errors.flatMap(({ keyword, params }) =>
    keyword === 'const' ? [String(Reflect.get(params, 'allowedValue'))] : [],
  )
  if (choices.length > 0) return `must be ${choices.join(' or ')}`
  if (Reflect.get(schema, 'type') === 'integer') return `must be a whole number${range(schema)}`
  const description: unknown = Reflect.get(schema, 'description')
  const what = typeof description === 'string' ? ` (${description})` : ''
  return `${errors[0]?.message ?? 'is not valid'}${what}`
}

function range(schema: object): string {
  const least: unknown = Reflect.get(schema, 'minimum')
  const most: unknown = Reflect.get(schema, 'maximum')
  if (typeof least !== 'number') return ''
  return typeof most === 'number' ? ` from ${least} to ${most}` : `, ${least} or more`
}
