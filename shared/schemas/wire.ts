import { Type, type Static } from 'typebox'
import { Envelope } from './command.ts'
import { Arch, Digest, FunctionName, Labels, NodeId } from './names.ts'
import { LogLine } from './health.ts'

/**
 * Reply to a hello: the node's newest command, when it has one; and the trust documents above the version that the node
 * named, oldest first.
 */
export const HelloReply = Type.Object({
  command: Type.Optional(Envelope),
  trust: Type.Optional(Type.Array(Envelope, { maxItems: 16 })),
  /** The node was taken out of the fleet; its command is to run nothing. */
  removed: Type.Optional(Type.Literal(true)),
})
export type HelloReply = Static<typeof HelloReply>

/**
 * Request on `shoal.v1.artifact.get`. The reply's payload is the bytes; its header `Shoal-Total` the artifact's size.
 * A failure has an empty payload and the headers `Shoal-Code` (a fault code) and `Shoal-Message`.
 */
export const ArtifactRange = Type.Object({
  digest: Digest,
  offset: Type.Integer({ minimum: 0 }),
  bytes: Type.Integer({ minimum: 1 }),
})
export type ArtifactRange = Static<typeof ArtifactRange>
export const ARTIFACT_HEADERS = {
  total: 'Shoal-Total',
  code: 'Shoal-Code',
  message: 'Shoal-Message',
} as const

/** Request on `shoal.v1.node.<id>.invoke`: this in the header `Shoal-Head` as JSON, the body as payload. */
export const InvokeHead = Type.Object({
  fn: FunctionName,
  method: Type.String(),
  path: Type.String(),
  query: Type.String(),
  headers: Type.Array(Type.Tuple([Type.String(), Type.String()])),
  deadlineMs: Type.Integer({ minimum: 1 }),
})
export type InvokeHead = Static<typeof InvokeHead>

/** Its reply: this in `Shoal-Head`, the body as payload; `code` when the call ended in a fault. */
export const InvokeReplyHead = Type.Object({
  status: Type.Integer(),
  headers: Type.Array(Type.Tuple([Type.String(), Type.String()])),
  code: Type.Optional(Type.String()),
  message: Type.Optional(Type.String()),
})
export type InvokeReplyHead = Static<typeof InvokeReplyHead>
export const HEAD_HEADER = 'Shoal-Head'

/**
 * Request on `shoal.v1.node.<id>.logs`. `followMs` > 0 is a lease: until it ends the node also publishes new lines of the
 * function on `shoal.v1.log.<id>.<fn token>` (JSON array of LogLine); renewed by asking again with `tail: 0`.
 */
export const LogsRequest = Type.Object({
  fn: FunctionName,
  tail: Type.Integer({ minimum: 0, maximum: 10_000 }),
  followMs: Type.Integer({ minimum: 0, maximum: 60_000 }),
})
export type LogsRequest = Static<typeof LogsRequest>
export const LogsReply = Type.Object({ lines: Type.Array(LogLine), dropped: Type.Integer() })
export type LogsReply = Static<typeof LogsReply>

/** Body of `POST /v1/join`, the only call of the API that takes a join token's secret in place of the bearer token. */
export const JoinRequest = Type.Object({
  secret: Type.String({ minLength: 16, maxLength: 128 }),
  /** Public user nkey, made on the node (`U...`). */
  nodeKey: Type.String({ pattern: '^U[A-Z2-7]{55}$' }),
  /** Wanted node id; a free one is made from it. */
  name: Type.Optional(NodeId),
  arch: Arch,
  labels: Labels,
})
export type JoinRequest = Static<typeof JoinRequest>
export const JoinReply = Type.Object({
  node: NodeId,
  natsUrls: Type.Array(Type.String(), { minItems: 1 }),
  /** NATS user JWT: this node's own subjects only. */
  userJwt: Type.String(),
  trust: Envelope,
})
export type JoinReply = Static<typeof JoinReply>

/** What a join token is: base64url of this as JSON. `root` pins the trust document's root key id. */
export const JoinToken = Type.Object({
  url: Type.String(),
  secret: Type.String(),
  root: Type.String(),
})
export type JoinToken = Static<typeof JoinToken>
