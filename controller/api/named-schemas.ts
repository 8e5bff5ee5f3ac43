import { FunctionView, NodeView, Placement, Release, Rollout } from '#shared/schemas/api.ts'
import { Envelope, FunctionSettings } from '#shared/schemas/command.ts'
import { FunctionReport, Heartbeat, Inventory } from '#shared/schemas/health.ts'
import { FunctionName, Labels, Runtime } from '#shared/schemas/names.ts'

/** Schemas that get a name in the description; written out wherever they occur, they would make it ten times as long. */
const NAMED: Readonly<Record<string, object>> = {
  FunctionName,
  Runtime,
  Labels,
  FunctionSettings,
  Envelope,
  FunctionReport,
  Heartbeat,
  Inventory,
  Placement,
  Release,
  Rollout,
  FunctionView,
  NodeView,
}

/** The same description with the schemas of `NAMED` under `components`, and references where they were. */
export function withNamedSchemas(description: object): object {
  const names = new Map<string, string>()
  for (const [name, schema] of Object.entries(NAMED)) names.set(JSON.stringify(plain(schema)), name)
  const replace = (value: unknown, self?: string): unknown => {
    if (typeof value !== 'object' || value === null) return value
    if (Array.isArray(value)) return value.map((item) => replace(item))
    const name = names.get(JSON.stringify(plain(value)))
    if (name !== undefined && name !== self) return { $ref: `#/components/schemas/${name}` }
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, replace(inner)]))
  }
  const schemas = Object.fromEntries(
    Object.entries(NAMED).map(([name, schema]) => [name, replace(plain(schema), name)]),
  )
  const { components, ...rest } = Object.fromEntries(Object.entries(description))
  return {
    ...Object.fromEntries(Object.entries(rest).map(([key, value]) => [key, replace(value)])),
    components: { ...components, schemas },
  }
}

/** As the description has it: keys in order, a constant as a list of one, a pattern of names as any name. */
function plain(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map((item) => plain(item))
  const entries = Object.entries(value).map(([key, inner]): [string, unknown] => {
    if (key === 'const') return ['enum', [inner]]
    if (key !== 'patternProperties') return [key, plain(inner)]
    return ['additionalProperties', plain(Object.values(Object(inner))[0])]
  })
  return Object.fromEntries(entries.toSorted(([a], [b]) => (a < b ? -1 : 1)))
}
