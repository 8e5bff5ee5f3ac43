import { Type, type Static } from 'typebox'

/** `sieve` or `site/thermo`: 1 to 4 segments of `[A-Za-z0-9_.-]`; no segment is `.` or `..`. */
export const FunctionName = Type.String({
  pattern: '^(?!\\.{1,2}(/|$))[A-Za-z0-9_.-]{1,64}(/(?!\\.{1,2}(/|$))[A-Za-z0-9_.-]{1,64}){0,3}$',
  maxLength: 259,
  description: 'Function name: 1 to 4 segments of [A-Za-z0-9_.-], joined by "/"',
})

/** A node's id: one NATS subject token and one DNS label. */
export const NodeId = Type.String({
  pattern: '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$',
  description: 'Node id: a DNS label',
})

/** `r<number>-<first 8 hex digits of the release digest>`, e.g. `r3-1a2b3c4d`. */
export const ReleaseId = Type.String({ pattern: '^r[1-9][0-9]{0,8}-[0-9a-f]{8}$' })

export const Digest = Type.String({ pattern: '^sha256:[0-9a-f]{64}$' })

export const Runtime = Type.Union([
  Type.Literal('nodejs'),
  Type.Literal('python3'),
  Type.Literal('binary'),
])
export type Runtime = Static<typeof Runtime>
export const RUNTIMES = ['nodejs', 'python3', 'binary'] as const satisfies readonly Runtime[]

export const Arch = Type.Union([Type.Literal('amd64'), Type.Literal('arm64')])
export type Arch = Static<typeof Arch>

export const EngineKind = Type.Union([Type.Literal('docker'), Type.Literal('process')])
export type EngineKind = Static<typeof EngineKind>

/** Labels of a node, e.g. `{ site: 'north', arch: 'arm64' }`. */
export const Labels = Type.Record(
  Type.String({ pattern: '^[A-Za-z0-9_.-]{1,63}$' }),
  Type.String({ pattern: '^[A-Za-z0-9_.-]{0,63}$' }),
)
export type Labels = Static<typeof Labels>
