import { Type, type Static } from 'typebox'
import { FunctionSettings } from './command.ts'
import { Heartbeat, Inventory, LogLine, Reason, Refusal } from './health.ts'
import { Arch, Digest, FunctionName, Labels, NodeId, ReleaseId, Runtime } from './names.ts'

/** What the controller's API answers; the CLI and the compat adapters read the same schemas. */

/** `any` for bundles without native code. */
export const BundleArch = Type.Union([Arch, Type.Literal('any')])
export type BundleArch = Static<typeof BundleArch>

/** One immutable version of a function. */
export const Release = Type.Object({
  id: ReleaseId,
  function: FunctionName,
  number: Type.Integer({ minimum: 1 }),
  runtime: Runtime,
  entry: Type.Optional(Type.String()),
  digest: Digest,
  bytes: Type.Integer(),
  arch: BundleArch,
  sourceHash: Type.String(),
  createdAtMs: Type.Integer(),
})
export type Release = Static<typeof Release>

export const RolloutNodeState = Type.Union([
  Type.Literal('pending'), // selected, command not sent yet
  Type.Literal('sent'), // command on its way
  Type.Literal('applying'), // kept by the node, handlers start
  Type.Literal('ready'),
  Type.Literal('failed'), // the node took the command, the release does not run
  Type.Literal('refused'), // the node did not take the command, or cannot run this release
  Type.Literal('offline'),
])
export type RolloutNodeState = Static<typeof RolloutNodeState>

export const RolloutNode = Type.Object({
  node: NodeId,
  state: RolloutNodeState,
  reason: Type.Optional(Reason),
  sinceMs: Type.Integer(),
})
export type RolloutNode = Static<typeof RolloutNode>

export const RolloutState = Type.Union([
  Type.Literal('rolling'),
  Type.Literal('waiting'), // only offline nodes are missing
  Type.Literal('done'),
  Type.Literal('failed'),
  Type.Literal('aborted'),
  Type.Literal('timed-out'),
])
export type RolloutState = Static<typeof RolloutState>

export const Rollout = Type.Object({
  id: Type.String(),
  function: FunctionName,
  release: ReleaseId,
  selector: Type.String(),
  settings: FunctionSettings,
  state: RolloutState,
  reason: Type.Optional(Type.String()),
  createdAtMs: Type.Integer(),
  deadlineAtMs: Type.Integer(),
  endedAtMs: Type.Optional(Type.Integer()),
  nodes: Type.Array(RolloutNode),
})
export type Rollout = Static<typeof Rollout>

/** Where a done rollout put a function: a node that joins later and matches gets it too. */
export const Placement = Type.Object({
  selector: Type.String(),
  release: ReleaseId,
  settings: FunctionSettings,
})
export type Placement = Static<typeof Placement>

export const FunctionView = Type.Object({
  name: FunctionName,
  latestRelease: ReleaseId,
  /** Of the last rollout; absent before the first. */
  settings: Type.Optional(FunctionSettings),
  /** Oldest first; of several that match a node (and its architecture) the last counts. */
  placements: Type.Array(Placement),
  /** Newest first. */
  releases: Type.Array(Release),
  nodes: Type.Array(
    Type.Object({
      node: NodeId,
      release: ReleaseId,
      /** A function state, or `offline`, or `unknown` until the node has reported. */
      state: Type.String(),
      reason: Type.Optional(Reason),
    }),
  ),
})
export type FunctionView = Static<typeof FunctionView>

export const NodeView = Type.Object({
  id: NodeId,
  labels: Labels,
  arch: Arch,
  online: Type.Boolean(),
  /** 0: never. */
  lastSeenMs: Type.Integer(),
  /** Of the newest command made for this node, 0 for none. */
  generation: Type.Integer(),
  /** Of the command that the node says it keeps. */
  acceptedGeneration: Type.Integer(),
  /** Heartbeats that got lost, and starts of the agent, since the controller started. */
  missedBeats: Type.Integer(),
  boots: Type.Integer(),
  inventory: Type.Optional(Inventory),
  heartbeat: Type.Optional(Heartbeat),
  refusal: Type.Optional(Refusal),
})
export type NodeView = Static<typeof NodeView>

export const NewToken = Type.Object({
  token: Type.String(),
  expiresAtMs: Type.Integer(),
  /** Why agents on other hosts cannot use it, and what to set. */
  warning: Type.Optional(Type.String()),
})
export type NewToken = Static<typeof NewToken>

export const AssignmentView = Type.Object({
  function: FunctionName,
  node: NodeId,
  release: ReleaseId,
  settings: FunctionSettings,
})
export type AssignmentView = Static<typeof AssignmentView>

/** A line of `GET /v1/functions/{name}/logs`. */
export const NodeLogLine = Type.Intersect([Type.Object({ node: NodeId }), LogLine])
export type NodeLogLine = Static<typeof NodeLogLine>

/** A line of the answer to `POST /v1/functions/{name}/releases`. */
export const ReleaseLine = Type.Union([
  Type.Object({ type: Type.Literal('log'), line: Type.String() }),
  Type.Object({ type: Type.Literal('release'), release: Release, cached: Type.Boolean() }),
  Type.Object({
    type: Type.Literal('error'),
    code: Type.String(),
    message: Type.String(),
    lines: Type.Optional(Type.Array(Type.String())),
  }),
])
export type ReleaseLine = Static<typeof ReleaseLine>

/** `DELETE /v1/functions/{name}` and `POST /v1/wipe`. */
export const Removal = Type.Object({
  removed: Type.Array(FunctionName),
  /** Nodes that have not confirmed yet: offline, or slower than `waitMs`. */
  pending: Type.Array(NodeId),
})
export type Removal = Static<typeof Removal>

/** What `GET /v1/events` (WebSocket) sends, one JSON text per message. */
export const ControllerEvent = Type.Union([
  Type.Object({ type: Type.Literal('node'), node: NodeView }),
  Type.Object({ type: Type.Literal('node-deleted'), node: NodeId }),
  Type.Object({ type: Type.Literal('rollout'), rollout: Rollout }),
  Type.Object({
    type: Type.Literal('function'),
    function: FunctionName,
    change: Type.Union([Type.Literal('release'), Type.Literal('deleted')]),
  }),
])
export type ControllerEvent = Static<typeof ControllerEvent>

/** Every error answer. */
export const ApiError = Type.Object({
  code: Type.String(),
  message: Type.String(),
  retry: Type.Boolean(),
  details: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
})
export type ApiError = Static<typeof ApiError>
