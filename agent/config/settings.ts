import { AgentConfig } from './schema.ts'

type Key = keyof AgentConfig

/** What the schema says of one key, as far as people are told. */
interface Described {
  readonly default?: string | number | boolean
  readonly description?: string
  readonly secret?: boolean
}

/** All keys, in the order of the schema. */
export const KEYS: readonly Key[] = Object.keys(AgentConfig.properties).filter(isKey)

/** `httpPort` is set by `SHOAL_HTTP_PORT`. */
export function settingName(key: string): string {
  return `SHOAL_${key.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`
}

/** All names a key can be set by, the strongest first: the ports have older ones too. */
export function settingNames(key: Key): readonly string[] {
  const name = settingName(key)
  if (key !== 'httpPort' && key !== 'coapPort' && key !== 'grpcPort') return [name]
  const protocol = key.replace('Port', '')
  return [name, `${protocol.toUpperCase()}_PORT`, `${protocol}_PORT`]
}

/** The effective configuration for people: secrets are replaced. */
export function printableConfig(config: Readonly<AgentConfig>): Record<string, unknown> {
  return Object.fromEntries(
    KEYS.filter((key) => config[key] !== undefined).map((key) => [
      key,
      describedAs(key).secret === true ? '(set, not shown)' : config[key],
    ]),
  )
}

/** One line per setting: name, default, meaning. */
export function settingsHelp(): string {
  return KEYS.map((key) => {
    const { default: standard, description = '' } = describedAs(key)
    const value = standard === undefined ? '' : ` [${String(standard)}]`
    return `  ${settingName(key).padEnd(24)}${description}${value}`
  }).join('\n')
}

function isKey(name: string): name is Key {
  return Object.hasOwn(AgentConfig.properties, name)
}

function describedAs(key: Key): Described {
  const schema: object = AgentConfig.properties[key]
  return schema
}
