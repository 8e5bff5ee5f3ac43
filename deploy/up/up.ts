import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ApiClient } from '#controller/api-client/index.ts'
import { bootstrap } from '../bootstrap/index.ts'
import type { EngineKind } from '#shared/schemas/names.ts'
import type { DeployConfig } from '../config.ts'
import { formatSeconds, type Output } from '../output.ts'
import { checkPorts } from '../ports.ts'
import { lockFolder } from './lock.ts'
import { removeHandlers } from './leftover-handlers.ts'
import { clientHost } from './client-host.ts'
import { createParts, type Parts } from './parts.ts'
import { deploySamples } from './samples.ts'
import { waitForFunctions } from './settled.ts'
import { Stopper } from './stopper.ts'
import { summary } from './summary.ts'

const DOCKERD_CHECK_MS = 1_000
const JOIN_TOKEN_TTL_MS = 600_000

export interface UpOptions {
  readonly config: DeployConfig
  readonly env: NodeJS.ProcessEnv
  readonly out: Output
}

/**
 * Sets up, starts everything, says what runs where, and resolves when `signal` has been aborted and everything has stopped.
 *
 * @throws Fault `CONFLICT`, `PORT_TAKEN`; Error with a part's last lines; what ran until then has been stopped
 */
export async function up(options: UpOptions, signal: AbortSignal): Promise<void> {
  const { config, out } = options
  const startedAtMs = performance.now()
  using lock = lockFolder(config.data)
  const left = await lock.endLeftovers(signal)
  if (left.length > 0) out.line(`Ended what a killed run left behind: ${left.join(', ')}`)
  await checkPorts(config)
  await using stopper = new Stopper(out)
  const ready = await bootstrap({ config, purpose: 'start', out }, signal)
  const { engine, dockerd } = ready
  if (dockerd !== undefined) {
    stopper.add('dockerd', async () => void (await dockerd.stop()))
    keepAlive(dockerd, out, signal)
  }
  if (engine === 'process') warnAboutProcessEngine(ready.withoutDocker, out)

  const parts = createParts({
    ...options,
    engine,
    imagesFile: ready.imagesFile,
    onPid: (name, pid) => lock.note(name, pid),
    onNews: (text) => out.line(text),
  })
  const client = await startParts(parts, { config, engine, out, stopper }, signal)
  if (config.samples) await deploySamples({ data: config.data, client, out }, signal)
  await waitForFunctions(client, signal)
  out.line(await summary({ config, engine, client }, signal))
  out.line(`ready in ${formatSeconds(performance.now() - startedAtMs)}; Ctrl+C stops everything`)
  await aborted(signal)
  out.line('stopping')
}

/** All at once: each waits by itself for what it needs. Stopped in this order: agent, its handlers, controller, NATS. */
async function startParts(
  parts: Parts,
  context: {
    readonly config: DeployConfig
    readonly engine: EngineKind
    readonly out: Output
    readonly stopper: Stopper
  },
  signal: AbortSignal,
): Promise<ApiClient> {
  const { config, engine, out, stopper } = context
  const failed = new AbortController()
  const either = AbortSignal.any([signal, failed.signal])
  const nats = parts.startNats(either)
  stopper.addPart('nats', nats, 500)
  const controller = parts.startController(either)
  stopper.addPart('controller', controller, 1_500)
  const client = controller.then(() => apiClient(config))
  stopper.add('handlers', () => removeHandlers(config, engine, out))
  const agent = parts.startAgent(async () => joinToken(await client, either), either)
  stopper.addPart('agent', agent, 7_000)
  try {
    await Promise.all([nats, agent, client])
  } catch (error) {
    failed.abort(error)
    throw error
  }
  return client
}

async function apiClient(config: DeployConfig): Promise<ApiClient> {
  const token = await readFile(join(config.data, 'controller', 'api-token'), 'utf8')
  const url = `http://${clientHost(config.apiHost)}:${config.ports.api}`
  return new ApiClient({ url, token: token.trim() })
}

async function joinToken(client: ApiClient, signal: AbortSignal): Promise<string> {
  return (await client.createToken({ uses: 1, ttlMs: JOIN_TOKEN_TTL_MS }, signal)).token
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
}

function warnAboutProcessEngine(why: string | undefined, out: Output): void {
  out.line(
    `WARNING: functions run as plain processes of this user, isolated from nothing (${why ?? 'no Docker'}). For development only.`,
  )
}

/** On a machine without an init system nobody else brings dockerd back. */
function keepAlive(
  dockerd: { ensureRunning(signal: AbortSignal): Promise<boolean> },
  out: Output,
  signal: AbortSignal,
): void {
  const loop = async (): Promise<void> => {
    while (!signal.aborted) {
      await sleep(DOCKERD_CHECK_MS, undefined, { signal })
      try {
        if (await dockerd.ensureRunning(signal)) out.line('dockerd had ended; started again')
      } catch (error) {
        if (!signal.aborted) out.line(error instanceof Error ? error.message : String(error))
      }
    }
  }
  loop().catch(() => undefined)
}
