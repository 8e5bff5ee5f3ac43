import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { Fault } from '#shared/fault.ts'

/** What deploy itself takes from the environment; everything else is passed on to the parts that it starts. */
export interface DeployConfig {
  /** The data folder (`SHOAL_DATA`). */
  readonly data: string
  /** `SHOAL_ENGINE`, when it forces one. */
  readonly engine: 'docker' | 'process' | undefined
  /** Path of the engine's socket (`SHOAL_DOCKER_SOCKET`, or `DOCKER_HOST` when that is a Unix socket). */
  readonly dockerSocket: string
  /** PEM bundle that downloads in builds trust, and where its path came from. */
  readonly ca: CaBundle | undefined
  /** Proxy settings for builds. */
  readonly proxy: Readonly<Record<string, string>>
  /** `CI=true`: what cannot be set up is a failure. */
  readonly ci: boolean
  /** `SHOAL_SAMPLES=0` turns them off; so does serving the API of an earlier system, whose clients bring functions of these names. */
  readonly samples: boolean
  readonly root: boolean
  readonly apiHost: string
  /** Address that nats-server listens on. */
  readonly natsHost: string
  readonly ports: Readonly<Record<PortName, number>>
}

export interface CaBundle {
  readonly file: string
  readonly from: string
}

/** Every port that `npm start` opens, with the settings that move it; the first one that is set wins. */
export const PORTS = {
  http: {
    standard: 8000,
    protocol: 'tcp',
    settings: ['SHOAL_HTTP_PORT', 'HTTP_PORT', 'http_PORT'],
  },
  coap: {
    standard: 5683,
    protocol: 'udp',
    settings: ['SHOAL_COAP_PORT', 'COAP_PORT', 'coap_PORT'],
  },
  grpc: {
    standard: 9000,
    protocol: 'tcp',
    settings: ['SHOAL_GRPC_PORT', 'GRPC_PORT', 'grpc_PORT'],
  },
  admin: { standard: 8081, protocol: 'tcp', settings: ['SHOAL_ADMIN_PORT'] },
  api: { standard: 7420, protocol: 'tcp', settings: ['SHOAL_API_PORT'] },
  nats: { standard: 4222, protocol: 'tcp', settings: ['SHOAL_NATS_PORT'] },
} as const satisfies Record<string, PortRow>

interface PortRow {
  readonly standard: number
  readonly protocol: 'tcp' | 'udp'
  readonly settings: readonly [string, ...string[]]
}

export type PortName = keyof typeof PORTS

function samplesSetting(env: NodeJS.ProcessEnv): boolean {
  const wish = setting(env, 'SHOAL_SAMPLES')
  return wish === undefined ? setting(env, 'SHOAL_COMPAT') === undefined : wish !== '0'
}

/** Reads the environment. @throws Fault `CONFIG_INVALID` with all problems at once */
export function loadDeployConfig(env: NodeJS.ProcessEnv): DeployConfig {
  const problems: string[] = []
  const config: DeployConfig = {
    data: resolve(setting(env, 'SHOAL_DATA') ?? join(homedir(), '.local/share/shoal')),
    engine: engineSetting(env, problems),
    dockerSocket: dockerSocket(env),
    ca: caBundle(env),
    proxy: proxySettings(env),
    ci: env['CI'] === 'true' || env['CI'] === '1',
    samples: samplesSetting(env),
    root: process.getuid?.() === 0,
    apiHost: setting(env, 'SHOAL_API_HOST') ?? '127.0.0.1',
    natsHost: setting(env, 'SHOAL_NATS_HOST') ?? '127.0.0.1',
    ports: {
      http: port(env, 'http', problems),
      coap: port(env, 'coap', problems),
      grpc: port(env, 'grpc', problems),
      admin: port(env, 'admin', problems),
      api: port(env, 'api', problems),
      nats: port(env, 'nats', problems),
    },
  }
  if (problems.length > 0) throw new Fault('CONFIG_INVALID', problems.join('; '), { problems })
  return config
}

function setting(env: NodeJS.ProcessEnv, name: string): string | undefined {
  const value = env[name]
  return value === '' ? undefined : value
}

function engineSetting(env: NodeJS.ProcessEnv, problems: string[]): DeployConfig['engine'] {
  const value = setting(env, 'SHOAL_ENGINE')
  if (value === undefined || value === 'docker' || value === 'process') return value
  problems.push(`SHOAL_ENGINE is "${value}"; it can be docker or process`)
  return undefined
}

function dockerSocket(env: NodeJS.ProcessEnv): string {
  const own = setting(env, 'SHOAL_DOCKER_SOCKET')
  if (own !== undefined) return own
  const host = setting(env, 'DOCKER_HOST')
  return host?.startsWith('unix://') === true
    ? host.slice('unix://'.length)
    : '/var/run/docker.sock'
}

/**
 * `SHOAL_CA_BUNDLE`; when it is not set at all, what other programs on this machine were told to trust: whoever sits behind a
 * company's proxy has set one of these. Set but empty turns it off.
 */
function caBundle(env: NodeJS.ProcessEnv): CaBundle | undefined {
  const own = env['SHOAL_CA_BUNDLE']
  if (own === '') return undefined
  for (const from of ['SHOAL_CA_BUNDLE', 'NODE_EXTRA_CA_CERTS', 'SSL_CERT_FILE']) {
    const file = setting(env, from)
    if (file !== undefined) return { file, from }
  }
  return undefined
}

function proxySettings(env: NodeJS.ProcessEnv): Record<string, string> {
  const found: Record<string, string> = {}
  for (const name of ['http_proxy', 'https_proxy', 'no_proxy']) {
    const value = setting(env, name) ?? setting(env, name.toUpperCase())
    if (value === undefined) continue
    // Some programs read the one spelling, some the other.
    found[name] = value
    found[name.toUpperCase()] = value
  }
  return found
}

function port(env: NodeJS.ProcessEnv, name: PortName, problems: string[]): number {
  const { standard, settings } = PORTS[name]
  const used = settings.find((one) => setting(env, one) !== undefined)
  if (used === undefined) return standard
  const value = Number(env[used])
  if (Number.isInteger(value) && value >= -1 && value <= 65_535 && value !== 0) return value
  problems.push(`${used} is "${env[used]}"; it must be a port from 1 to 65535, or -1 for off`)
  return standard
}
