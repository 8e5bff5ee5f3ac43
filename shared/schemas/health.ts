import { Type, type Static } from 'typebox'
import { Arch, EngineKind, FunctionName, Labels, NodeId, ReleaseId, Runtime } from './names.ts'

/** State of one function on a node, seen from outside. */
export const FunctionState = Type.Union([
  Type.Literal('pending'), // known, nothing done yet
  Type.Literal('fetching'), // artifact on its way
  Type.Literal('starting'), // handlers start
  Type.Literal('ready'), // the replicas that shall always be there serve, or it sleeps until it is called
  Type.Literal('degraded'), // some serve
  Type.Literal('failed'), // none of the desired release serves; `reason` says why; retried with backoff
])
export type FunctionState = Static<typeof FunctionState>

export const Reason = Type.Object({ code: Type.String(), message: Type.String() })
export type Reason = Static<typeof Reason>

export const FunctionReport = Type.Object({
  fn: FunctionName,
  /** The desired release. */
  release: ReleaseId,
  /** Releases that answer calls now (during a switch, two). */
  serving: Type.Array(ReleaseId),
  state: FunctionState,
  reason: Type.Optional(Reason),
  handlers: Type.Object({
    ready: Type.Integer(),
    starting: Type.Integer(),
    /** Replaced ones that still finish calls; absent: none. */
    draining: Type.Optional(Type.Integer()),
    /** Unplanned ends since the agent started. */
    restarts: Type.Integer(),
    /** Paused: of the desired release, while it sleeps, or of the one before, for a quick way back. */
    paused: Type.Optional(Type.Integer()),
  }),
  /** Starts that went wrong in a row, while there are any; and when the next one is due. */
  failures: Type.Optional(Type.Integer()),
  retryAtMs: Type.Optional(Type.Integer()),
  /** Why it has fewer handlers than its calls need: `MEMORY_BUDGET`. */
  limited: Type.Optional(Reason),
  /** Since the agent started. */
  calls: Type.Object({
    ok: Type.Integer(),
    /** Function errors (kind 0) and answers with status 500 to 599. */
    failed: Type.Integer(),
    refused: Type.Integer(),
    timedOut: Type.Integer(),
    cancelled: Type.Integer(),
    /** Sent once more because the first handler ended, whatever came of it. */
    retried: Type.Optional(Type.Integer()),
    asyncAccepted: Type.Integer(),
    asyncDone: Type.Integer(),
    asyncFailed: Type.Integer(),
    inFlight: Type.Integer(),
    queued: Type.Integer(),
  }),
  /** Of calls ended in about the last minute; absent when there were none. */
  latencyMs: Type.Optional(
    Type.Object({ p50: Type.Number(), p90: Type.Number(), p99: Type.Number(), max: Type.Number() }),
  ),
})
export type FunctionReport = Static<typeof FunctionReport>

/** What seldom changes; sent with every hello. */
export const Inventory = Type.Object({
  agentVersion: Type.String(),
  arch: Arch,
  cores: Type.Integer(),
  memoryMiB: Type.Integer(),
  os: Type.String(),
  kernel: Type.String(),
  engine: EngineKind,
  engineVersion: Type.String(),
  /** Runtimes this node has an image (or, on the process engine, an interpreter) for. */
  runtimes: Type.Array(Runtime),
  labels: Labels,
  /** Where devices call this node; 0 = off. */
  ports: Type.Object({ http: Type.Integer(), coap: Type.Integer(), grpc: Type.Integer() }),
})
export type Inventory = Static<typeof Inventory>

/** Why a node refused a command. */
export const Refusal = Type.Object({
  code: Type.String(),
  message: Type.String(),
  atMs: Type.Integer(),
  /** Of the refused command, as far as that could be read; nothing vouches for it. */
  generation: Type.Optional(Type.Integer()),
})
export type Refusal = Static<typeof Refusal>

/** `shoal.v1.health.<id>`, every few seconds. */
export const Heartbeat = Type.Object({
  node: NodeId,
  /** New at every start of the agent. */
  boot: Type.String(),
  /** Rises by 1 per beat within a boot. */
  seq: Type.Integer({ minimum: 1 }),
  sentAtMs: Type.Integer(),
  uptimeMs: Type.Integer(),
  /** Until the next one. Absent: as the controller expects it. */
  everyMs: Type.Optional(Type.Integer({ minimum: 1, maximum: 3_600_000 })),
  /** Of the command kept, 0 for none. */
  generation: Type.Integer(),
  /** sha256 over the canonical list of [fn, release, settings] kept; the controller compares. */
  stateDigest: Type.String(),
  functions: Type.Array(FunctionReport),
  host: Type.Object({
    /** Share of all cores in use, 0 to 1. */
    cpuShare: Type.Number(),
    load1: Type.Number(),
    memoryMiB: Type.Integer(),
    memoryFreeMiB: Type.Integer(),
    agentRssMiB: Type.Integer(),
    diskMiB: Type.Integer(),
    diskFreeMiB: Type.Integer(),
  }),
  /** Last deep probe: can this host really start a container? */
  probe: Type.Optional(
    Type.Object({
      ok: Type.Boolean(),
      atMs: Type.Integer(),
      tookMs: Type.Integer(),
      error: Type.Optional(Type.String()),
    }),
  ),
  /** The last command that this node refused, until one is accepted. */
  refusal: Type.Optional(Refusal),
})
export type Heartbeat = Static<typeof Heartbeat>

/** Request on `shoal.v1.hello.<id>`: "I am connected, what shall I run?" */
export const Hello = Type.Object({
  node: NodeId,
  /** Of the command kept, 0 for none. */
  generation: Type.Integer(),
  /** Version of the trust document kept. */
  trustVersion: Type.Optional(Type.Integer()),
  inventory: Inventory,
})
export type Hello = Static<typeof Hello>

export const LogLine = Type.Object({
  atMs: Type.Integer(),
  fn: FunctionName,
  release: ReleaseId,
  handler: Type.String(),
  level: Type.Union([
    Type.Literal('debug'),
    Type.Literal('info'),
    Type.Literal('warn'),
    Type.Literal('error'),
  ]),
  /** `shoal-request-id` of the call that wrote it, when known. */
  request: Type.Optional(Type.String()),
  text: Type.String(),
})
export type LogLine = Static<typeof LogLine>
