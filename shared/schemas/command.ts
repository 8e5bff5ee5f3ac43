import { Type, type Static } from 'typebox'
import { LIMITS } from '../limits.ts'
import { Digest, FunctionName, NodeId, ReleaseId, Runtime } from './names.ts'

/**
 * How a function runs on a node; the part of an assignment that an operator sets. What came after the first version is
 * optional, so that commands kept from before still load; `scaleOf` tells what holds when it is absent.
 */
export const FunctionSettings = Type.Object(
  {
    replicas: Type.Integer({
      default: 1,
      minimum: 0,
      maximum: LIMITS.replicasMax,
      description: 'Handlers that are always there; 0: none while nobody calls',
    }),
    replicasMax: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: LIMITS.replicasMax,
        description:
          'Handlers as calls need them; absent: as `replicas`, at least 1 (isolation `fresh`: 8 more, those in use included)',
      }),
    ),
    idleMs: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 604_800_000,
        description:
          'With `replicas` 0: after so long without a call the handler is paused; 0: never. Set to 300000 when absent',
      }),
    ),
    removeMs: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 604_800_000,
        description: 'A handler paused for so long is removed; absent: 3600000',
      }),
    ),
    isolation: Type.Optional(
      Type.Union([Type.Literal('shared'), Type.Literal('single'), Type.Literal('fresh')], {
        description:
          'shared (when absent): calls share handlers; single: one call at a time in each; fresh: each call has a handler of its own, and `replicas` are ready ahead',
      }),
    ),
    idempotent: Type.Optional(
      Type.Boolean({
        description:
          'A call whose handler ends before the answer begins is sent once more, to another handler; absent: false',
      }),
    ),
    concurrency: Type.Integer({
      default: 64,
      minimum: 1,
      maximum: 1024,
      description: 'Calls in flight per handler',
    }),
    queue: Type.Integer({
      default: 256,
      minimum: 0,
      maximum: 65_536,
      description: 'Calls waiting for a handler before the next is refused',
    }),
    timeoutMs: Type.Integer({ default: 30_000, minimum: 10, maximum: 3_600_000 }),
    memoryMiB: Type.Integer({ default: 128, minimum: 16, maximum: 65_536 }),
    cpus: Type.Number({ default: 1, minimum: 0.05, maximum: 64 }),
    pids: Type.Integer({ default: 128, minimum: 8, maximum: 4096 }),
    network: Type.Union([Type.Literal('none'), Type.Literal('outbound')], { default: 'none' }),
    env: Type.Record(Type.String({ pattern: '^[A-Za-z_][A-Za-z0-9_]*$' }), Type.String(), {
      default: {},
    }),
    requireContainers: Type.Boolean({
      default: false,
      description: 'Never run on the process engine',
    }),
    errors: Type.Union([Type.Literal('status'), Type.Literal('tinyfaas')], {
      default: 'status',
      description:
        'tinyfaas: a function error is answered as success with its text, as tinyFaaS does',
    }),
  },
  { additionalProperties: false },
)
export type FunctionSettings = Static<typeof FunctionSettings>

/** "This node runs this release with these settings." */
export const Assignment = Type.Object(
  {
    fn: FunctionName,
    release: ReleaseId,
    runtime: Runtime,
    /** File to load, relative to the bundle; absent: the runner finds it. */
    entry: Type.Optional(Type.String({ maxLength: 512 })),
    artifact: Type.Object({
      digest: Digest,
      bytes: Type.Integer({ minimum: 1, maximum: LIMITS.bundleBytesMax }),
    }),
    settings: FunctionSettings,
  },
  { additionalProperties: false },
)
export type Assignment = Static<typeof Assignment>

/** The payload of a signed command: everything a node shall run, and nothing else. */
export const NodeCommand = Type.Object(
  {
    /** The audience: the one node this is meant for. */
    node: NodeId,
    /** Strictly rising per node; a node refuses one that is not above the highest it has kept. */
    generation: Type.Integer({ minimum: 1 }),
    issuedAtMs: Type.Integer({ minimum: 0 }),
    /** Checked on receipt, not when a kept command is read again: offline is normal. */
    expiresAtMs: Type.Integer({ minimum: 0 }),
    functions: Type.Array(Assignment, { maxItems: LIMITS.functionsPerNodeMax }),
  },
  { additionalProperties: false },
)
export type NodeCommand = Static<typeof NodeCommand>

/** JWS general JSON serialisation (RFC 7515 section 7.2.1), alg EdDSA, `kid` in each protected header. */
export const Envelope = Type.Object({
  payload: Type.String({ maxLength: LIMITS.commandBytesMax * 2 }),
  signatures: Type.Array(
    Type.Object({
      protected: Type.String({ maxLength: 1024 }),
      signature: Type.String({ maxLength: 1024 }),
    }),
    { minItems: 1, maxItems: 16 },
  ),
})
export type Envelope = Static<typeof Envelope>

/** Public keys and who may sign what, after TUF's root role. Payload of an envelope signed by `root`. */
export const TrustDocument = Type.Object({
  version: Type.Integer({ minimum: 1 }),
  expiresAtMs: Type.Integer({ minimum: 0 }),
  /** By key id: the RFC 7638 thumbprint (SHA-256, base64url) of the JWK. */
  keys: Type.Record(
    Type.String(),
    Type.Object({ kty: Type.Literal('OKP'), crv: Type.Literal('Ed25519'), x: Type.String() }),
  ),
  roles: Type.Object({
    root: Type.Object({
      keyIds: Type.Array(Type.String()),
      threshold: Type.Integer({ minimum: 1 }),
    }),
    release: Type.Object({
      keyIds: Type.Array(Type.String()),
      threshold: Type.Integer({ minimum: 1 }),
    }),
    command: Type.Object({
      keyIds: Type.Array(Type.String()),
      threshold: Type.Integer({ minimum: 1 }),
    }),
  }),
})
export type TrustDocument = Static<typeof TrustDocument>

/** Reply to `shoal.v1.node.<id>.command`: kept and being applied, or refused with a fault code. */
export const CommandReply = Type.Union([
  Type.Object({ accepted: Type.Literal(true), generation: Type.Integer() }),
  Type.Object({
    accepted: Type.Literal(false),
    code: Type.String(),
    message: Type.String(),
    /** Highest generation the node has kept, 0 for none. */
    generation: Type.Integer(),
  }),
])
export type CommandReply = Static<typeof CommandReply>
