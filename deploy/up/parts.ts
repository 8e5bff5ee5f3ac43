import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ensureNatsAuthority } from '#controller/signing/index.ts'
import type { EngineKind } from '#shared/schemas/names.ts'
import { natsServer } from '../bootstrap/index.ts'
import type { DeployConfig } from '../config.ts'
import { clientHost } from './client-host.ts'
import { LogFile } from './log-file.ts'
import { Part, type PartSpec } from './part.ts'

const ROOT = join(import.meta.dirname, '../..')
const READY_TIMEOUT_MS = 60_000

export interface PartsOptions {
  readonly config: DeployConfig
  readonly engine: EngineKind
  readonly imagesFile: string
  readonly env: NodeJS.ProcessEnv
  readonly onPid: (name: string, pid: number | undefined) => void
  readonly onNews: (text: string) => void
}

/** The three programs of an installation: how each is started. */
export interface Parts {
  startNats(signal: AbortSignal): Promise<Part>
  startController(signal: AbortSignal): Promise<Part>
  /** `joinToken` is asked for one when the agent has no identity yet. */
  startAgent(joinToken: () => Promise<string>, signal: AbortSignal): Promise<Part>
}

export function createParts(options: PartsOptions): Parts {
  const { config, onPid, onNews } = options
  const spec = (
    name: string,
  ): Pick<PartSpec, 'name' | 'log' | 'readyTimeoutMs' | 'onPid' | 'onNews'> => ({
    name,
    log: new LogFile({ path: join(config.data, 'log', `${name}.log`) }),
    readyTimeoutMs: READY_TIMEOUT_MS,
    onPid: (pid) => onPid(name, pid),
    onNews,
  })
  // Once, and before the controller looks: two makers of the same keys would log in nobody.
  const natsConfig = writeNatsConfig(config)
  // Whoever starts a part hears of it.
  natsConfig.catch(() => undefined)
  return {
    async startNats(signal) {
      const file = await natsConfig
      const program = natsServer(config.data) ?? 'nats-server'
      const args = ['--config', file]
      return Part.start(
        { ...spec('nats'), command: program, args, env: () => options.env, ready: isNatsReady },
        signal,
      )
    },
    async startController(signal) {
      await natsConfig
      const whole = { ...spec('controller'), ...script('controller/main.ts') }
      return Part.start({ ...whole, env: () => controllerEnv(options) }, signal)
    },
    async startAgent(joinToken, signal) {
      const env = async () =>
        agentEnv(options, (await isEnrolled(config.data)) ? undefined : await joinToken())
      const args = [join(ROOT, 'deploy/agent-memory.sh'), join(ROOT, 'agent/main.ts')]
      return Part.start(
        { ...spec('agent'), command: '/bin/sh', args, env, ready: isReadyLine },
        signal,
      )
    },
  }
}

/** A node whose enrolment was cut off has an identity that holds its key and no more; one that was removed needs a new token. */
async function isEnrolled(data: string): Promise<boolean> {
  try {
    const identity: unknown = JSON.parse(await readFile(join(data, 'agent/identity.json'), 'utf8'))
    if (typeof identity !== 'object' || identity === null) return false
    return 'joined' in identity && !('removed' in identity)
  } catch {
    return false
  }
}

function script(path: string): Pick<PartSpec, 'command' | 'args' | 'ready'> {
  return { command: process.execPath, args: [join(ROOT, path)], ready: isReadyLine }
}

function isNatsReady(line: string): boolean {
  return line.includes('Server is ready')
}

/** True for the pino line with which controller and agent say that they serve. */
export function isReadyLine(line: string): boolean {
  if (!line.startsWith('{')) return false
  try {
    const event: { msg?: unknown } = JSON.parse(line)
    return event.msg === 'ready'
  } catch {
    return false
  }
}

async function writeNatsConfig(config: DeployConfig): Promise<string> {
  const authority = await ensureNatsAuthority(join(config.data, 'controller', 'nats'), {
    port: config.ports.nats,
    host: config.natsHost,
  })
  const folder = join(config.data, 'nats')
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const file = join(folder, 'nats.conf')
  await writeFile(file, authority.serverConfig, { mode: 0o600 })
  return file
}

function controllerEnv({ config, engine, imagesFile, env }: PartsOptions): NodeJS.ProcessEnv {
  return {
    ...env,
    SHOAL_DATA: config.data,
    SHOAL_CONTROLLER_DATA: join(config.data, 'controller'),
    SHOAL_NATS_URL: natsUrl(config),
    SHOAL_API_HOST: config.apiHost,
    SHOAL_API_PORT: String(config.ports.api),
    SHOAL_IMAGES_FILE: imagesFile,
    SHOAL_DOCKER_SOCKET: config.dockerSocket,
    SHOAL_ENGINE: engine,
    ...(config.ca === undefined ? {} : { SHOAL_CA_BUNDLE: config.ca.file }),
    ...buildProxies(config, env),
  }
}

/** Builds of functions go through the proxy that our own set-up uses, unless told otherwise. */
function buildProxies({ proxy }: DeployConfig, env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const found: NodeJS.ProcessEnv = {}
  for (const name of ['HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY']) {
    const value = env[`SHOAL_${name}`] ?? proxy[name]
    if (value !== undefined) found[`SHOAL_${name}`] = value
  }
  return found
}

function natsUrl({ ports, natsHost }: DeployConfig): string {
  return `nats://${clientHost(natsHost)}:${ports.nats}`
}

function agentEnv(
  { config, engine, imagesFile, env }: PartsOptions,
  joinToken: string | undefined,
): NodeJS.ProcessEnv {
  return {
    ...env,
    NODE: process.execPath,
    SHOAL_DATA: config.data,
    SHOAL_AGENT_DATA: join(config.data, 'agent'),
    // The port may be another one than when the node was enrolled.
    SHOAL_NATS_URL: natsUrl(config),
    SHOAL_HTTP_PORT: String(config.ports.http),
    SHOAL_COAP_PORT: String(config.ports.coap),
    SHOAL_GRPC_PORT: String(config.ports.grpc),
    SHOAL_ADMIN_PORT: String(config.ports.admin),
    SHOAL_ENGINE: engine,
    SHOAL_DOCKER_SOCKET: config.dockerSocket,
    SHOAL_IMAGES_FILE: imagesFile,
    SHOAL_DRAIN_MS: env['SHOAL_DRAIN_MS'] ?? '3000',
    // An installed agent leaves its handlers to its next start; what Ctrl+C ends shall leave nothing.
    SHOAL_REMOVE_HANDLERS: 'true',
    ...(joinToken === undefined ? {} : { SHOAL_JOIN_TOKEN: joinToken }),
  }
}
