import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { once } from 'node:events'
import { join } from 'node:path'
import Docker from 'dockerode'
import { pino, type Logger } from 'pino'
import { Value } from 'typebox/value'
import { systemClock } from '#shared/clock.ts'
import { Fault } from '#shared/fault.ts'
import { Images } from '#shared/schemas/images.ts'
import { startFailureText } from '#shared/start-failure.ts'
import { writeAddress } from './address-file.ts'
import { ensureApiToken, startApi, type ApiServices } from './api/index.ts'
import { createBuilder, type Builder } from './build/index.ts'
import { ArtifactStore, Catalogue } from './catalogue/index.ts'
import { startCompat } from './compat/index.ts'
import { loadControllerConfig, type LoadedConfig } from './config/index.ts'
import { lockControllerData } from './data-lock.ts'
import { EventHub } from './events/index.ts'
import { ArtifactServer, Enrolment, Fleet, NatsBus } from './fleet/index.ts'
import { Rollouts } from './rollout/index.ts'
import { ensureKeys, ensureNatsAuthority } from './signing/index.ts'
import { SqliteStore } from './store/index.ts'

const NATS_PORT = 4222
const GARBAGE_EVERY_MS = 3_600_000
/** SIGTERM ends this process within 10 s, whatever hangs. */
const STOP_WITHIN_MS = 9_000

/**
 * Wires one controller and runs it until `signal` aborts. Only this file knows every part. It serves without NATS too (nodes
 * are then offline) and connects in the background. The stack closes in reverse order.
 */
export async function runController(
  config: LoadedConfig,
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  const data = config.controllerData
  const part = (name: string) => log.child({ part: name })
  await using stack = new AsyncDisposableStack()
  // Before anything in it is opened: what a controller clears away at its start may be another one's work.
  stack.use(await lockControllerData(data))
  const token = await ensureApiToken(data)
  const store = stack.use(SqliteStore.open(join(data, 'shoal.db')))
  const artifacts = await ArtifactStore.open(join(data, 'artifacts'))
  const images = await loadImages(config.imagesFile, log)
  const builder = stack.use(makeBuilder(config, images, part('build')))
  const events = new EventHub()
  const clock = systemClock
  const catalogue = new Catalogue({ store, artifacts, builder, events, clock })
  stack.use(collectGarbage(catalogue, part('catalogue')))
  const { fleet, bus, enrolment } = await startFleet(
    config,
    { store, artifacts, events, log },
    stack,
  )
  const rollouts = new Rollouts({ store, fleet, events, clock, log: part('rollout') })
  stack.defer(() => rollouts.close())
  const services: ApiServices = {
    store,
    catalogue,
    fleet,
    rollouts,
    enrolment: enrolment(() => config.apiUrl ?? api.url),
    bus,
    events,
    clock,
    hostArch: images.arch,
  }
  const api = stack.use(
    await startApi({
      services: () => services,
      token,
      log: part('api'),
      host: config.apiHost,
      port: config.apiPort,
    }),
  )
  if (config.compat.length > 0) {
    stack.use(
      await startCompat(config.compat, {
        apiUrl: api.url,
        token,
        ports: { tinyfaas: config.compatTinyfaasPort },
        log: part('compat'),
      }),
    )
  }
  await writeAddress(data, { api: api.url, nats: config.natsUrl })
  // Whoever started this process waits for the line, so it comes at every log level.
  log.child({}, { level: 'info' }).info({ api: api.url, port: api.port, data }, 'ready')
  if (!signal.aborted) await once(signal, 'abort')
  log.info({ reason: String(signal.reason) }, 'controller stopping')
}

async function startFleet(
  config: LoadedConfig,
  parts: { store: SqliteStore; artifacts: ArtifactStore; events: EventHub; log: Logger },
  stack: AsyncDisposableStack,
): Promise<{
  fleet: Fleet
  bus: NatsBus
  enrolment: (apiUrl: () => string) => Enrolment
}> {
  const { store, artifacts, events, log } = parts
  const clock = systemClock
  const signing = await ensureKeys(join(config.controllerData, 'keys'))
  const port = Number(URL.parse(config.natsUrl[0] ?? '')?.port || NATS_PORT)
  const authority = await ensureNatsAuthority(join(config.controllerData, 'nats'), { port })
  const fleetLog = log.child({ part: 'fleet' })
  const bus = stack.use(
    NatsBus.start({
      servers: config.natsUrl,
      credentials: authority.controllerCreds,
      name: 'shoal-controller',
      log: fleetLog,
      onUp: () => void reconnected(),
      onDown: () => undefined,
    }),
  )
  const fleet = new Fleet({
    store,
    bus,
    signer: signing,
    events,
    clock,
    log: fleetLog,
    heartbeatMs: config.heartbeatMs,
    commandExpiresMs: config.commandExpiresMs,
  })
  stack.defer(() => fleet.close())
  const reconnected = async () => {
    try {
      await fleet.reconnected()
    } catch (error) {
      fleetLog.error({ err: error }, 'nodes not looked at after connecting')
    }
  }
  const server = new ArtifactServer({
    bus,
    artifacts,
    isEnrolled: async (node) => {
      const row = await store.node(node)
      return row !== undefined && row.deletedAtMs === undefined
    },
    log: fleetLog,
  })
  stack.defer(() => server.close())
  const enrolment = (apiUrl: () => string) =>
    new Enrolment({
      store,
      clock,
      rootKeyId: signing.rootKeyId,
      trustEnvelope: () => signing.trustEnvelope(),
      issueNodeUser: (node, nodeKey) => authority.issueNodeUser(node, nodeKey),
      natsUrls: config.natsPublicUrl ?? config.natsUrl,
      apiUrl,
      onJoined: (node) => fleet.touch(node),
    })
  return { fleet, bus, enrolment }
}

function makeBuilder(config: LoadedConfig, images: Images, log: Logger): Builder {
  const useDocker = images.docker !== undefined && existsSync(config.dockerSocket)
  return createBuilder({
    folder: join(config.controllerData, 'build'),
    images,
    docker: useDocker ? new Docker({ socketPath: config.dockerSocket }) : undefined,
    ca: config.caBundle,
    proxy: { http: config.httpProxy, https: config.httpsProxy, no: config.noProxy },
    // Without Docker, npm and pip are found where this process would find them.
    ...(process.env['PATH'] === undefined ? {} : { searchPath: process.env['PATH'] }),
    log,
  })
}

/** @throws Fault `CONFIG_INVALID` for a file that cannot be understood; without one, only plain bundles can be built */
async function loadImages(file: string, log: Logger): Promise<Images> {
  const hostArch = process.arch === 'arm64' ? 'arm64' : 'amd64'
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    log.warn(
      { err: error, file },
      'no runtime images: dependencies cannot be installed in containers',
    )
    return { arch: hostArch }
  }
  try {
    const value: unknown = JSON.parse(text)
    if (Value.Check(Images, value)) return value
    const problem = Value.Errors(Images, value)[0]
    throw new TypeError(`${problem?.instancePath ?? ''} ${problem?.message ?? ''}`)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new Fault(
      'CONFIG_INVALID',
      `SHOAL_IMAGES_FILE=${file} cannot be read: ${why}`,
      { setting: 'SHOAL_IMAGES_FILE' },
      { cause: error },
    )
  }
}

function collectGarbage(catalogue: Catalogue, log: Logger): Disposable {
  const collect = async () => {
    try {
      const removed = await catalogue.collectGarbage()
      if (removed.length > 0) log.info({ count: removed.length }, 'artifacts removed')
    } catch (error) {
      log.error({ err: error }, 'artifacts not collected')
    }
  }
  const timer = setInterval(() => void collect(), GARBAGE_EVERY_MS)
  timer.unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

/** User and password of a proxy's URL are nobody's business. */
function maskCredentials(_key: string, value: unknown): unknown {
  return typeof value === 'string' ? value.replace(/^(\w+:\/\/)[^/@\s]+@/, '$1***@') : value
}

if (import.meta.main) {
  const stop = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => {
      stop.abort(name)
      setTimeout(() => process.exit(0), STOP_WITHIN_MS).unref()
    })
  }
  const log = pino({ base: { program: 'controller' } })
  try {
    const config = loadControllerConfig(process.env)
    log.level = config.logLevel
    if (process.argv.includes('--print-config')) {
      process.stdout.write(`${JSON.stringify(config, maskCredentials, 2)}\n`)
    } else {
      await runController(config, log, stop.signal)
    }
  } catch (error) {
    const { code, message } = Fault.from(error)
    log.fatal(code === 'INTERNAL' ? { err: error } : { code, reason: message }, 'controller failed')
    process.stderr.write(startFailureText('shoal-controller', error))
    process.exitCode = 1
  }
}
