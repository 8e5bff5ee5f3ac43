import { once } from 'node:events'
import net from 'node:net'
import { ApiClient } from '#controller/api-client/index.ts'
import { Fault } from '#shared/fault.ts'
import type { NodeView } from '#shared/schemas/api.ts'
import { findConnection, locateApi, readAddress } from '../connection.ts'
import { hintFor } from '../hints.ts'
import { fail, ok, warn, type CheckResult, type DoctorInput } from './model.ts'

const CONNECT_TIMEOUT_MS = 2_000
const API_TIMEOUT_MS = 10_000

/** The controller answers, and knows our token; with it come the nodes, for the checks of these. */
export async function checkApi(
  { options, env }: DoctorInput,
  signal: AbortSignal,
): Promise<{ result: CheckResult; nodes?: NodeView[] }> {
  const check = 'controller'
  const limited = AbortSignal.any([signal, AbortSignal.timeout(API_TIMEOUT_MS)])
  try {
    const { url } = await locateApi(options, env)
    const ready = await new ApiClient({ url, token: '' }).ready(limited)
    const client = new ApiClient(await findConnection(options, env))
    const nodes = await client.nodes(limited)
    if (ready) return { result: ok(check, `ready at ${url}`), nodes }
    const hint = 'it is starting, or cannot reach NATS: see <data folder>/log/controller.log'
    return { result: warn(check, `answers at ${url} but is not ready`, hint), nodes }
  } catch (error) {
    if (signal.aborted) throw error
    const fault = Fault.from(error)
    return {
      result: fail(
        check,
        `${fault.code}: ${fault.message}`,
        hintFor(fault.code) ?? 'run npm start',
      ),
    }
  }
}

export function checkNodes(nodes: readonly NodeView[] | undefined): CheckResult {
  const check = 'nodes'
  if (nodes === undefined) {
    return warn(check, 'unknown without the controller', 'mend the controller first')
  }
  if (nodes.length === 0) {
    return warn(
      check,
      'none has joined',
      '`shoal node token` makes a token; `npm start` brings one node',
    )
  }
  const offline = nodes.filter((node) => !node.online).map((node) => node.id)
  const online = nodes.length - offline.length
  const refusing = nodes.filter((node) => node.refusal !== undefined).map((node) => node.id)
  if (online === 0) {
    return fail(
      check,
      `none of ${nodes.length} is online`,
      'start their agents; see log/agent.log there',
    )
  }
  if (refusing.length > 0) {
    return warn(
      check,
      `refuse their command: ${refusing.join(', ')}`,
      '`shoal node show <id>` says why',
    )
  }
  if (offline.length === 0) return ok(check, `${online} online`)
  return warn(
    check,
    `${online} of ${nodes.length} online; offline: ${offline.slice(0, 5).join(', ')}`,
    'start their agents, or `shoal node rm` those that are gone',
  )
}

/** NATS speaks first: its INFO line is the proof that it is NATS. */
export async function checkNats(
  { options, env }: DoctorInput,
  signal: AbortSignal,
): Promise<CheckResult> {
  const check = 'NATS'
  const port = env['SHOAL_NATS_PORT']
  const noted = port ? undefined : (await readAddress(options, env))?.nats[0]
  const url = URL.parse(env['SHOAL_NATS_URL'] || (noted ?? `nats://127.0.0.1:${port || 4222}`))
  if (url === null) return fail(check, 'SHOAL_NATS_URL is not a URL', 'e.g. nats://127.0.0.1:4222')
  const address = `${url.hostname}:${url.port || '4222'}`
  const words = await firstWords(url.hostname, Number(url.port || 4222), signal)
  if (words === undefined) {
    return fail(check, `nothing answers at ${address}`, '`npm start` starts it; see log/nats.log')
  }
  if (words.startsWith('INFO ')) return ok(check, address)
  return fail(
    check,
    `what answers at ${address} is not NATS`,
    'free the port, or set SHOAL_NATS_PORT',
  )
}

/** The node's own ports on this machine; meant for a machine that runs an agent. */
export async function checkPorts(
  nodes: readonly NodeView[] | undefined,
  env: DoctorInput['env'],
  signal: AbortSignal,
): Promise<CheckResult> {
  const check = 'ports'
  const wanted = [
    { name: 'HTTP', setting: 'SHOAL_HTTP_PORT', port: portOf(env, 'HTTP', 8000) },
    { name: 'gRPC', setting: 'SHOAL_GRPC_PORT', port: portOf(env, 'GRPC', 9000) },
  ].filter(({ port }) => port > 0)
  const open: string[] = []
  const closed: string[] = []
  for (const { name, port } of wanted) {
    const answers = await connects(port, signal)
    ;(answers ? open : closed).push(`${name} ${port}`)
  }
  const served = nodes?.some((node) => node.online) === true
  if (served && closed.length > 0) {
    return warn(
      check,
      `nothing answers on ${closed.join(', ')} of this machine`,
      'fine when the nodes are elsewhere; else see log/agent.log',
    )
  }
  if (!served && open.length > 0) {
    return warn(
      check,
      `${open.join(', ')} taken though no node is online`,
      `another program may hold them: ${wanted.map(({ setting }) => setting).join(', ')} choose others`,
    )
  }
  return ok(check, served ? `${open.join(', ')} answer` : 'free')
}

function portOf(env: DoctorInput['env'], name: string, standard: number): number {
  const set = env[`SHOAL_${name}_PORT`] || env[`${name}_PORT`] || env[`${name.toLowerCase()}_PORT`]
  const value = Number(set ?? standard)
  return Number.isInteger(value) ? value : standard
}

async function connects(port: number, signal: AbortSignal): Promise<boolean> {
  const socket = net.connect({ host: '127.0.0.1', port })
  try {
    await once(socket, 'connect', { signal: AbortSignal.any([signal, timeLimit()]) })
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

async function firstWords(
  host: string,
  port: number,
  signal: AbortSignal,
): Promise<string | undefined> {
  const socket = net.connect({ host, port })
  try {
    const [data]: Buffer[] = await once(socket, 'data', {
      signal: AbortSignal.any([signal, timeLimit()]),
    })
    return data?.toString('latin1')
  } catch {
    return undefined
  } finally {
    socket.destroy()
  }
}

function timeLimit(): AbortSignal {
  return AbortSignal.timeout(CONNECT_TIMEOUT_MS)
}
