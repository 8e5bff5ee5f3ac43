import type { ApiClient } from '#controller/api-client/index.ts'
import { Fault } from '#shared/fault.ts'
import type { FunctionView, Rollout } from '#shared/schemas/api.ts'
import type { FunctionSettings } from '#shared/schemas/command.ts'
import { timeLimit } from '#shared/time-limit.ts'
import type { CompatDeployment, FunctionsPort, InvokePorts } from './functions-port.ts'
import { Turns } from './turns.ts'

const LOG_LINES_MAX = 10_000
const FORGET_TIMEOUT_MS = 30_000
const DEFAULT_PORTS: InvokePorts = { http: 8000, coap: 5683, grpc: 9000 }

export interface ApiFunctionsOptions {
  readonly client: ApiClient
  /** Says of a function's settings that it was deployed through this adapter. */
  readonly owns: (settings: FunctionSettings) => boolean
  /** Gets each line that a build prints. */
  readonly onBuildLine: (name: string, line: string) => void
}

/** The port of the adapters, over the controller's own HTTP API. */
export function apiFunctions({ client, owns, onBuildLine }: ApiFunctionsOptions): FunctionsPort {
  const list = async (signal: AbortSignal): Promise<string[]> => {
    const functions = await client.functions(signal)
    return functions
      .filter((fn) => isOwn(fn, owns))
      .map((fn) => fn.name)
      .toSorted()
  }
  const own = async (name: string, signal: AbortSignal): Promise<void> => {
    if (isOwn(await client.function(name, signal), owns)) return
    throw new Fault('FUNCTION_UNKNOWN', `function ${name} was not deployed through this adapter`)
  }
  const remove = async (name: string, signal: AbortSignal): Promise<void> => {
    await own(name, signal)
    await client.removeFunction(name, signal)
  }
  const deployOne = async (
    deployment: CompatDeployment,
    signal: AbortSignal,
  ): Promise<InvokePorts> => {
    const { name } = deployment
    const before = (await client.functions(signal)).find((fn) => fn.name === name)
    // Without settings it was never rolled out: what a cut-off upload has left.
    if (before?.settings !== undefined && !owns(before.settings)) {
      throw new Fault(
        'CONFLICT',
        `function ${name} exists and was not deployed through this adapter`,
      )
    }
    try {
      const onLine = (line: string) => onBuildLine(name, line)
      return await portsOf(client, await deploy(client, deployment, onLine, signal), signal)
    } catch (error) {
      // A new function that does not come up shall not stay in the list, nor be started again and again.
      if (before === undefined) await forget(client, name)
      throw error
    }
  }
  const turns = new Turns()
  return {
    list,
    // In turns: a second upload of a name must see what the first one has left.
    remove: (name, signal) => turns.run(name, signal, () => remove(name, signal)),
    deploy: (deployment, signal) =>
      turns.run(deployment.name, signal, () => deployOne(deployment, signal)),
    async logs(name, signal) {
      await own(name, signal)
      const lines = []
      for await (const line of client.logs(name, { tail: LOG_LINES_MAX }, signal)) lines.push(line)
      return lines
    },
    async wipe(signal) {
      const failed: Fault[] = []
      for (const name of await list(signal)) {
        try {
          await client.removeFunction(name, signal)
        } catch (error) {
          failed.push(Fault.from(error))
        }
      }
      return failed
    },
  }
}

function isOwn(fn: FunctionView, owns: ApiFunctionsOptions['owns']): boolean {
  return fn.settings !== undefined && owns(fn.settings)
}

async function deploy(
  client: ApiClient,
  { name, runtime, source, settings }: CompatDeployment,
  onLine: (line: string) => void,
  signal: AbortSignal,
): Promise<Rollout> {
  const upload =
    source.kind === 'zip'
      ? ({ kind: 'archive', type: 'application/zip', body: source.content } as const)
      : source
  const { release } = await client.createRelease(name, { source: upload, runtime }, onLine, signal)
  let rollout = await client.createRollout(
    { function: name, release: release.id, selector: '*', settings },
    signal,
  )
  for await (const snapshot of client.watchRollout(rollout.id, signal)) rollout = snapshot
  const ready = rollout.nodes.filter((node) => node.state === 'ready')
  if (rollout.state === 'done' || (rollout.state === 'waiting' && ready.length > 0)) return rollout
  const why = rollout.nodes.flatMap(({ node, reason }) =>
    reason === undefined ? [] : [`${node}: ${reason.code}: ${reason.message}`],
  )
  throw new Fault(
    'FUNCTION_UNAVAILABLE',
    `rollout of ${name} is ${rollout.state}: ${rollout.reason ?? (why.join('; ') || 'no node serves it')}`,
    { rollout: rollout.id },
  )
}

/** Also when the caller has gone, so without its signal. What has failed already is told to the caller, not this. */
async function forget(client: ApiClient, name: string): Promise<void> {
  await client.removeFunction(name, timeLimit(FORGET_TIMEOUT_MS)).catch(() => undefined)
}

/** Of the first node that serves it; all nodes of a fleet usually have the same. */
async function portsOf(
  client: ApiClient,
  rollout: Rollout,
  signal: AbortSignal,
): Promise<InvokePorts> {
  const first = rollout.nodes.find((node) => node.state === 'ready')
  if (first === undefined) return DEFAULT_PORTS
  const node = await client.node(first.node, signal)
  return node.inventory?.ports ?? DEFAULT_PORTS
}
