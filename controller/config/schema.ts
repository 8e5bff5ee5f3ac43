import { Type, type Static } from 'typebox'

const port = (standard: number, what: string) =>
  Type.Integer({ default: standard, minimum: 0, maximum: 65_535, description: what })

/**
 * The controller's whole configuration: the single source for types, validation and docs. A key `apiPort` is set by
 * `SHOAL_API_PORT`; lists are separated by commas.
 */
export const ControllerConfig = Type.Object(
  {
    controllerData: Type.String({
      description: "The controller's folder: database, artifacts, keys, API token",
    }),
    apiHost: Type.String({
      default: '127.0.0.1',
      minLength: 1,
      description: 'Address of the API; other than loopback only behind TLS',
    }),
    apiPort: port(7420, 'Port of the API; 0 takes a free one'),
    apiUrl: Type.Optional(
      Type.String({
        pattern: '^https?://',
        description: 'Where nodes reach the API, written into join tokens; default: host and port',
      }),
    ),
    natsUrl: Type.Array(Type.String({ pattern: '^(nats|tls)://' }), {
      default: ['nats://127.0.0.1:4222'],
      minItems: 1,
      description: 'NATS servers',
    }),
    natsPublicUrl: Type.Optional(
      Type.Array(Type.String({ pattern: '^(nats|tls)://' }), {
        minItems: 1,
        description: 'Where nodes reach NATS, if not at SHOAL_NATS_URL',
      }),
    ),
    compat: Type.Array(Type.Union([Type.Literal('tinyfaas')]), {
      default: [],
      uniqueItems: true,
      description: 'Management APIs of earlier systems to serve',
    }),
    compatTinyfaasPort: port(8080, 'Port of the tinyFaaS management API, loopback'),
    imagesFile: Type.Optional(
      Type.String({
        description: 'Runtime images by digest; default: images.json beside the controller folder',
      }),
    ),
    dockerSocket: Type.String({
      default: '/var/run/docker.sock',
      description: 'Engine for builds; without it, npm and pip of this host are used',
    }),
    caBundle: Type.Optional(
      Type.String({ description: 'PEM file with certificates that builds and downloads trust' }),
    ),
    httpProxy: Type.Optional(Type.String({ description: 'For builds and downloads' })),
    httpsProxy: Type.Optional(Type.String({ description: 'For builds and downloads' })),
    noProxy: Type.Optional(Type.String({ description: 'Hosts that need no proxy' })),
    heartbeatMs: Type.Integer({
      default: 5_000,
      minimum: 250,
      maximum: 60_000,
      description: 'How often agents beat; three missed beats make a node offline',
    }),
    commandExpiresMs: Type.Integer({
      default: 86_400_000,
      minimum: 10_000,
      maximum: 2_592_000_000,
      description: 'How long a command may take to reach its node',
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
export type ControllerConfig = Static<typeof ControllerConfig>
