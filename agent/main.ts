import { once } from 'node:events'
import * as fs from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { pino, type Logger } from 'pino'
import {
  CommandKeeper,
  ensureIdentity,
  forgetEnrolment,
  TrustKeeper,
} from '#agent/command/index.ts'
import {
  AgentFolder,
  loadAgentConfig,
  printableConfig,
  settingsHelp,
  type LoadedConfig,
} from '#agent/config/index.ts'
import {
  DockerEngine,
  ImagesFile,
  PROCESS_ENGINE_WARNING,
  ProcessEngine,
  type Engine,
} from '#agent/handlers/index.ts'
import { hostArch } from '#agent/health/index.ts'
import { keepCompiled, startMemoryTrim } from '#agent/memory/index.ts'
import { systemClock } from '#shared/clock.ts'
import { Fault } from '#shared/fault.ts'
import { LOG_KEYS } from '#shared/log-keys.ts'
import { startFailureText } from '#shared/start-failure.ts'
import { timeLimit } from '#shared/time-limit.ts'
import { Agent, type Base } from './agent.ts'
import { tryDoors } from './doors.ts'

/** Beyond `drainMs`; then the process ends whatever still hangs. */
const STOP_WITHIN_MS = 4_500
const ENGINE_WITHIN_MS = 5_000
/** By then it has compiled most of what it needs, and has had time for the calls that waited for it. */
const KEEP_COMPILED_MS = 10_000

/**
 * Wires one agent and runs it until `signal` aborts. With `agent.ts` the only file that knows every part: each gets what it needs here and nothing
 * else reads the environment or opens a connection. What was kept on the disk is served before the network is looked at.
 *
 * @param announce - Called once, when the doors are open
 */
export async function runAgent(
  config: LoadedConfig,
  log: Logger,
  announce: (fields: object) => void,
  signal: AbortSignal,
): Promise<void> {
  await using stack = new AsyncDisposableStack()
  const folder = stack.use(await AgentFolder.open(config.agentData))
  const base = await openBase(config, folder, log, signal)
  const engine = stack.use(openEngine(base))
  stack.use(startMemoryTrim())
  await using agent = await Agent.open(base, engine)
  const ports = await agent.openDoors()
  announce({ [LOG_KEYS.node]: base.identity.node, ...ports, engine: engine.kind })
  void warnWithoutEngine(engine, signal)
  setTimeout(() => void keepCompiled(join(folder.path, 'compiled')), KEEP_COMPILED_MS).unref()
  const removed = agent.removed.then(() => true)
  const isRemoved = signal.aborted
    ? false
    : await Promise.race([removed, once(signal, 'abort').then(() => false)])
  log.info(
    { reason: isRemoved ? 'removed from the fleet' : String(signal.reason) },
    'agent stopping',
  )
  const watchdog = setTimeout(() => {
    log.fatal({}, 'still not stopped: ending by force')
    process.exit(1)
  }, config.drainMs + STOP_WITHIN_MS).unref()
  // No agent comes after this one to find them: it ends before it looks.
  await agent.close(isRemoved || config.removeHandlers)
  clearTimeout(watchdog)
  log.info({}, 'agent stopped')
  if (!isRemoved) return
  await forgetEnrolment({ folder: folder.path, fs })
  throw new Fault(
    'JOIN_REFUSED',
    'this node was removed from the fleet - to bring it back, run `shoal node token` at the controller and start this with the new SHOAL_JOIN_TOKEN',
  )
}

async function openBase(
  config: LoadedConfig,
  folder: AgentFolder,
  log: Logger,
  signal: AbortSignal,
): Promise<Base> {
  const clock = systemClock
  const part = log.child({ [LOG_KEYS.part]: 'command' })
  const common = { folder: folder.path, fs, clock, log: part }
  const enrolment = await ensureIdentity(
    {
      ...common,
      joinToken: config.joinToken,
      name: config.nodeName,
      arch: hostArch(),
      labels: config.nodeLabels ?? {},
      beforeJoin: () => tryDoors(config, log),
    },
    signal,
  )
  const natsUrls = config.natsUrl === undefined ? enrolment.natsUrls : [config.natsUrl]
  const identity = { ...enrolment, natsUrls }
  const { rootKeyId, trust: enrolled, node } = identity
  const trust = await TrustKeeper.open({ ...common, rootKeyId, enrolled })
  const keeper = await CommandKeeper.open({ ...common, node, trust })
  const installation = await folder.installationId()
  return { config, log, clock, identity, trust, keeper, installation }
}

function openEngine({ config, installation, log }: Base): Engine {
  const images = new ImagesFile(config.imagesFile)
  if (config.engine === 'docker') {
    const { dockerSocket: socketPath, dockerRuntime: runtime } = config
    const onWarning = (text: string): void => log.warn({}, text)
    return new DockerEngine({ socketPath, installation, images, runtime, onWarning })
  }
  log.warn({}, PROCESS_ENGINE_WARNING)
  const folder = join(config.agentData, 'h')
  return new ProcessEngine({ folder, installation, images, env: process.env })
}

/** No reason not to start: it may come back. But whoever starts an agent by hand should hear of it. */
async function warnWithoutEngine(engine: Engine, signal: AbortSignal): Promise<void> {
  const limited = AbortSignal.any([signal, timeLimit(ENGINE_WITHIN_MS)])
  try {
    await engine.version(limited)
  } catch (error) {
    if (signal.aborted) return
    const why = error instanceof Error ? error.message : String(error)
    process.stderr.write(`shoal-agent: ${why} - functions start as soon as it does\n`)
  }
}

const USAGE = `Usage: node agent/main.ts [--print-config] [--remove-handlers]

Runs functions on this host. Everything is set by the environment; ports are -1 for off.
Exit codes: 0 stopped as it was told, 1 failed: the reason is a line on stderr, and in the log on stdout.

${settingsHelp()}
`

/** Reads the command line and the environment, and runs. @returns the exit code */
async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      'print-config': { type: 'boolean' },
      'remove-handlers': { type: 'boolean' },
      help: { type: 'boolean' },
    },
  })
  if (values.help === true) {
    process.stdout.write(USAGE)
    return 0
  }
  const stop = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => stop.abort(name))
  const base = { [LOG_KEYS.part]: 'agent' }
  // "ready" is a contract with whoever started this, whatever the log level is.
  const contract = pino({ base })
  let log = contract
  try {
    const given = loadAgentConfig(process.env)
    const config = Object.freeze({
      ...given,
      removeHandlers: given.removeHandlers || values['remove-handlers'] === true,
    })
    if (values['print-config'] === true) {
      process.stdout.write(`${JSON.stringify(printableConfig(config), undefined, 2)}\n`)
      return 0
    }
    log = pino({ base, level: config.logLevel })
    await runAgent(config, log, (fields) => contract.info(fields, 'ready'), stop.signal)
    return 0
  } catch (error) {
    // Told to stop while it was still starting, e.g. waiting for the controller to enrol.
    if (stop.signal.aborted) return 0
    const code = Fault.is(error) ? error.code : 'INTERNAL'
    const reason = error instanceof Error ? error.message : String(error)
    // What is expected needs no stack.
    const stack = code === 'INTERNAL' ? { [LOG_KEYS.err]: error } : {}
    contract.fatal({ ...stack, code, reason }, 'agent failed')
    process.stderr.write(startFailureText('shoal-agent', error))
    return 1
  }
}

// Explicitly: a connection that some library keeps open must not keep a stopped agent alive.
if (import.meta.main) process.exit(await main())
