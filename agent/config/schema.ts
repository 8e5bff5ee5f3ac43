import { Type, type Static } from 'typebox'
import { LIMITS } from '#shared/limits.ts'
import { Labels, NodeId } from '#shared/schemas/names.ts'

const port = (standard: number, what: string) =>
  Type.Integer({
    default: standard,
    minimum: -1,
    maximum: 65_535,
    description: `${what}; -1 turns it off`,
  })

/**
 * The agent's whole configuration: the single source for types, validation and docs. A key `httpPort` is set by
 * `SHOAL_HTTP_PORT`. The ports are also read as `HTTP_PORT` and, as tinyFaaS's code does, `http_PORT`; `SHOAL_` wins, then upper-case.
 */
export const AgentConfig = Type.Object(
  {
    agentData: Type.String({
      description: "The agent's folder: identity, command, bundles, sockets, compiled code",
    }),
    nodeName: Type.Optional({
      ...NodeId,
      description: 'Wanted node id at enrolment; default: the host name',
    } as typeof NodeId),
    nodeLabels: Type.Optional({
      ...Labels,
      description: 'e.g. site=north,rack=2',
    } as typeof Labels),
    joinToken: Type.Optional(
      Type.String({ description: 'From `shoal node token`; needed once', secret: true }),
    ),
    natsUrl: Type.Optional(
      Type.String({
        pattern: '^(nats|tls)://',
        description: 'NATS server to use instead of those learnt at enrolment',
      }),
    ),
    bindHost: Type.String({
      default: '::',
      description: 'Address of HTTP, CoAP and gRPC; `::` is dual-stack',
    }),
    httpPort: port(8000, 'HTTP'),
    coapPort: port(5683, 'CoAP, UDP'),
    grpcPort: port(9000, 'gRPC'),
    adminHost: Type.String({
      default: '127.0.0.1',
      description: 'Address of /healthz, /readyz, /metrics',
    }),
    adminPort: port(8081, 'Admin HTTP'),
    engine: Type.Union([Type.Literal('docker'), Type.Literal('process')], { default: 'docker' }),
    dockerSocket: Type.String({ default: '/var/run/docker.sock' }),
    dockerRuntime: Type.Optional(
      Type.String({ description: "Docker runtime for handlers, e.g. gVisor's `runsc`" }),
    ),
    imagesFile: Type.Optional(
      Type.String({
        description: 'Runtime images by digest; default: images.json beside the agent folder',
      }),
    ),
    bodyBytesMax: Type.Integer({
      default: LIMITS.bodyBytesMax,
      minimum: 1024,
      maximum: 1024 * 1024 * 1024,
    }),
    callsMax: Type.Integer({
      default: 1_024,
      minimum: 1,
      maximum: 65_536,
      description: 'Calls in work on this node; with more, functions take turns',
    }),
    busyPollMicros: Type.Integer({
      default: 200,
      minimum: 0,
      maximum: 1_000,
      description:
        'A core may stay awake so long for the answer and the next call of an only caller, microseconds; 0: never',
    }),
    workers: Type.Integer({
      default: 1,
      minimum: 1,
      maximum: 64,
      description:
        'Processes for HTTP, CoAP and gRPC, for hosts with many cores; 1: the agent itself',
    }),
    heartbeatMs: Type.Integer({ default: 5_000, minimum: 250, maximum: 60_000 }),
    probeEveryMs: Type.Integer({
      default: 600_000,
      minimum: 1_000,
      maximum: 86_400_000,
      description: 'Deep probe of the engine',
    }),
    drainMs: Type.Integer({
      default: 5_000,
      minimum: 0,
      maximum: 600_000,
      description: 'For calls in flight when the agent stops; a switch lets them end',
    }),
    keepMs: Type.Integer({
      default: 600_000,
      minimum: 0,
      maximum: 86_400_000,
      description: 'A replaced release is kept paused so long, for a quick way back; 0: not at all',
    }),
    memoryBudget: Type.String({
      default: '80%',
      pattern: '^([1-9][0-9]?|100)%$|^[1-9][0-9]{0,8}$',
      description: "For all handlers together, by their limits: a share of this host's, or MiB",
    }),
    spares: Type.Integer({
      default: 1,
      minimum: 0,
      maximum: 16,
      description: 'Handlers started ahead, for each runtime and memory limit in use; 0: none',
    }),
    removeHandlers: Type.Boolean({
      default: false,
      description: 'Remove all handlers when the agent stops',
    }),
    logLevel: Type.Union(
      [
        Type.Literal('debug'),
        Type.Literal('info'),
        Type.Literal('warn'),
        Type.Literal('error'),
        Type.Literal('silent'),
      ],
      { default: 'info' },
    ),
  },
  { additionalProperties: false },
)
export type AgentConfig = Static<typeof AgentConfig>
