import { Socket } from 'node:net'
import { pino } from 'pino'
import { RemoteInvoker } from '#agent/invoke/index.ts'
import { startMemoryTrim } from '#agent/memory/index.ts'
import { Fault } from '#shared/fault.ts'
import { LOG_KEYS } from '#shared/log-keys.ts'
import type { FromWorker, ToWorker } from './model.ts'
import { OwnFronts } from './own-fronts.ts'

/** Where the agent puts its end of the calls' socket; see `worker-process.ts`. */
const CALLS_FD = 4

/** A process that has the fronts and nothing else; the agent starts it, and it does not outlive the agent. */
function main(): void {
  // Ctrl+C reaches the whole group, and a service manager tells every process: when to stop is the agent's to say.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => undefined)
  process.once('disconnect', () => process.exit(0))
  const socket = { fd: CALLS_FD, readable: true, writable: true, pauseOnCreate: true }
  const invoker = new RemoteInvoker(new Socket(socket))
  invoker.onLost = () => process.exit(0)
  startMemoryTrim()
  let fronts: Promise<OwnFronts> | undefined
  process.on('message', (message: ToWorker) => {
    if (message.kind === 'open') fronts = open(invoker, message)
    else void close(fronts, message.drainMs)
  })
}

async function open(
  invoker: RemoteInvoker,
  { settings, workers, logLevel }: Extract<ToWorker, { kind: 'open' }>,
): Promise<OwnFronts> {
  const log = pino({ base: { [LOG_KEYS.part]: 'worker' }, level: logLevel })
  try {
    await invoker.named
    const opened = await OwnFronts.open({ ...settings, invoker, log }, workers)
    await tell({ kind: 'opened' })
    return opened
  } catch (error) {
    const { code, message, details } = Fault.from(error)
    await tell({ kind: 'failed', code, message, details })
    return process.exit(1)
  }
}

async function close(fronts: Promise<OwnFronts> | undefined, drainMs: number): Promise<void> {
  await (await fronts)?.close(drainMs)
  process.exit(0)
}

function tell(message: FromWorker): Promise<void> {
  return new Promise((resolve) => {
    if (process.send === undefined) throw new RangeError('this program is started by the agent')
    process.send(message, () => resolve())
  })
}

main()
