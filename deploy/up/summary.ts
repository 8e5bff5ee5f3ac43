import { join, relative } from 'node:path'
import type { ApiClient } from '#controller/api-client/index.ts'
import type { FunctionView } from '#shared/schemas/api.ts'
import type { EngineKind } from '#shared/schemas/names.ts'
import { coapClient } from '../bootstrap/index.ts'
import type { DeployConfig } from '../config.ts'
import { formatTable } from '../output.ts'

const CALL_SCRIPT = 'deploy/call-grpc.mjs'

export interface SummaryOptions {
  readonly config: DeployConfig
  readonly engine: EngineKind
  readonly client: ApiClient
}

/** What runs where, and three lines to try it with. */
export async function summary(
  { config, engine, client }: SummaryOptions,
  signal: AbortSignal,
): Promise<string> {
  const { ports, apiHost, natsHost, data } = config
  const nodes = await client.nodes(signal)
  const functions = await client.functions(signal)
  const where = formatTable([
    ['part', 'where'],
    ['nats-server', `${natsHost}:${ports.nats}`],
    ['controller', `http://${apiHost}:${ports.api}`],
    [
      'agent',
      [
        portText(ports.http, 'HTTP'),
        portText(ports.coap, 'CoAP'),
        portText(ports.grpc, 'gRPC'),
      ].join(', '),
    ],
    ['engine', engine],
    ['data, logs', `${data}, ${data}/log`],
  ])
  const running = formatTable([
    ['function', 'release', 'runtime', 'node', 'state'],
    ...functions.flatMap(({ name, releases, nodes: on }) =>
      on.map(({ node, release, state, reason }) => [
        name,
        release,
        releases.find(({ id }) => id === release)?.runtime ?? '',
        node,
        reason === undefined ? state : `${state}: ${reason.message}`,
      ]),
    ),
  ])
  const offline = nodes.filter(({ online }) => !online).map(({ id }) => id)
  return [
    '',
    where,
    '',
    functions.length === 0 ? 'no functions yet' : running,
    ...(offline.length === 0 ? [] : ['', `nodes offline: ${offline.join(', ')}`]),
    ...tryLines(config, functions),
    '',
  ].join('\n')
}

function portText(port: number, protocol: string): string {
  return port === -1 ? `${protocol} off` : `${protocol} ${port}`
}

function tryLines({ ports }: DeployConfig, functions: readonly FunctionView[]): readonly string[] {
  const ready = new Set(
    functions
      .filter(({ nodes }) => nodes.some(({ state }) => state === 'ready'))
      .map(({ name }) => name),
  )
  const lines: string[] = []
  if (ready.has('sieve') && ports.http !== -1) {
    lines.push(`  curl -d 100 http://127.0.0.1:${ports.http}/sieve`)
  }
  const coapFunction = ['echo', 'hello'].find((name) => ready.has(name))
  if (coapFunction !== undefined && ports.coap !== -1) {
    const client = coapClient()
    const hint = client === undefined ? '   # needs: apt-get install libcoap3-bin' : ''
    const program = client ?? 'coap-client-notls'
    const uri = `coap://127.0.0.1:${ports.coap}/${coapFunction}`
    lines.push(`  ${program} -m post -e "over CoAP" ${uri}${hint}`)
  }
  if (ready.has('hello') && ports.grpc !== -1) {
    const script = relative(process.cwd(), join(import.meta.dirname, '../..', CALL_SCRIPT))
    lines.push(`  node ${script} 127.0.0.1:${ports.grpc} hello gRPC`)
  }
  return lines.length === 0 ? [] : ['', 'Try it:', ...lines]
}
