import { Fault } from '#shared/fault.ts'
import { bootstrap, BootstrapFailure } from './bootstrap/index.ts'
import { loadDeployConfig, type DeployConfig } from './config.ts'
import { stdoutOutput as out } from './output.ts'
import { checkSettings } from './settings.ts'
import { runTests } from './test.ts'
import { PartFailure, stopRunning, up } from './up/index.ts'

const STOP_TIMEOUT_MS = 15_000
/** Ctrl+C reaches us from the terminal and once more through npm; a person's second one comes later. */
const SAME_SIGNAL_MS = 700

const VERBS: Readonly<
  Record<string, (config: DeployConfig, signal: AbortSignal) => Promise<number>>
> = {
  async start(config, signal) {
    await up({ config, env: process.env, out }, signal)
    return 0
  },
  test: (config, signal) =>
    runTests({ config, env: process.env, out, args: process.argv.slice(3) }, signal),
  async bootstrap(config, signal) {
    await bootstrap({ config, purpose: 'test', out }, signal)
    return 0
  },
  async stop(config) {
    const pid = await stopRunning(config.data, STOP_TIMEOUT_MS)
    out.line(pid === undefined ? `nothing runs on ${config.data}` : `process ${pid} has stopped`)
    return 0
  },
}

// A terminal or pipe that has gone must not keep us from stopping in order.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined)

const stopping = new AbortController()
let firstSignalAtMs: number | undefined
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => {
    firstSignalAtMs ??= Date.now()
    if (Date.now() - firstSignalAtMs > SAME_SIGNAL_MS && name === 'SIGINT') process.exit(130)
    stopping.abort(new Error(`stopped by ${name}`))
  })
}

const verb = process.argv[2] ?? ''
try {
  const work = VERBS[verb]
  if (work === undefined) throw new Fault('CONFIG_INVALID', `unknown command "${verb}"`)
  if (verb === 'start' || verb === 'bootstrap') refuseBadSettings()
  process.exitCode = await work(loadDeployConfig(process.env), stopping.signal)
} catch (error) {
  process.exitCode = stopping.signal.aborted && verb === 'start' ? 0 : 1
  if (!stopping.signal.aborted) process.stderr.write(`${explain(error)}\n`)
}
// The parts are gone; whatever still holds the event loop (a connection kept alive) must not hold the terminal.
process.exit()

/** A mistake in a setting is told before minutes are spent on set-up. Tests have settings of their own. */
function refuseBadSettings(): void {
  const { problems, warnings } = checkSettings(process.env)
  for (const warning of warnings) process.stderr.write(`WARNING: ${warning}\n`)
  if (problems.length > 0) throw new Fault('CONFIG_INVALID', problems.join('\n'), { problems })
}

function explain(error: unknown): string {
  if (error instanceof BootstrapFailure) return `Set-up is not complete: ${error.message}`
  if (error instanceof PartFailure) return error.message
  if (error instanceof Fault) {
    const { problems } = error.details
    if (!Array.isArray(problems)) return `${error.code}: ${error.message}`
    return problems.map((problem) => `${error.code}: ${problem}`).join('\n')
  }
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}
