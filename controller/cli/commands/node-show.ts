import { Command } from 'commander'
import type { NodeView } from '#shared/schemas/api.ts'
import type { FunctionReport } from '#shared/schemas/health.ts'
import { openClient, type CliContext } from '../context.ts'
import { writeJson } from '../output.ts'
import { durationText, table } from '../table.ts'
import { labelsText } from './node-ls.ts'

/** `shoal node show <id>`: host, engine, functions. */
export function nodeShowCommand(context: CliContext): Command {
  return new Command('show')
    .description('show one node: its host, engine and functions')
    .argument('<id>', 'node')
    .option('--json', 'print the JSON document')
    .action(async (id: string, options: { json?: boolean }, command: Command) => {
      const client = await openClient(context, command)
      const node = await client.node(id, context.signal)
      if (options.json === true) writeJson(context.out, node)
      else context.out.write(nodeText(node, context.nowMs()))
    })
}

/** Pure, so the text is tested as text. */
export function nodeText(node: NodeView, nowMs: number): string {
  const seen = node.lastSeenMs === 0 ? 'never' : `${durationText(nowMs - node.lastSeenMs)} ago`
  const lines = [
    `${node.id}: ${node.online ? 'online' : 'offline'}, seen ${seen}, ${node.arch}`,
    `labels: ${labelsText(node) || 'none'}`,
    `command: generation ${node.generation}, kept by the node: ${node.acceptedGeneration}`,
    ...(node.refusal === undefined
      ? []
      : [`refused its last command: ${node.refusal.code}: ${node.refusal.message}`]),
    ...inventoryLines(node),
    ...hostLines(node),
  ]
  const rows = (node.heartbeat?.functions ?? []).map((fn) => [
    fn.fn,
    fn.state,
    fn.release,
    handlersText(fn),
    String(fn.handlers.restarts),
    `${fn.calls.ok}/${fn.calls.failed}/${fn.calls.refused + fn.calls.timedOut}`,
    fn.latencyMs === undefined
      ? '-'
      : `${fn.latencyMs.p50.toFixed(1)}/${fn.latencyMs.p99.toFixed(1)} ms`,
    whyText(fn, nowMs),
  ])
  const head = [
    'FUNCTION',
    'STATE',
    'RELEASE',
    'HANDLERS',
    'RESTARTS',
    'OK/FAILED/REFUSED',
    'P50/P99',
    '',
  ]
  return `${lines.join('\n')}\n\n${table(head, rows, 'no functions')}`
}

/** Ready, on their way, paused, draining. */
function handlersText({ handlers }: FunctionReport): string {
  const { ready, starting, paused = 0, draining = 0 } = handlers
  const more = [
    ...(paused === 0 ? [] : [`${paused} paused`]),
    ...(draining === 0 ? [] : [`${draining} draining`]),
  ]
  return [`${ready}+${starting}`, ...more].join(', ')
}

function whyText(fn: FunctionReport, nowMs: number): string {
  const { reason, limited, failures = 0, retryAtMs = 0 } = fn
  const tries =
    failures > 1 && retryAtMs > nowMs
      ? ` (failed ${failures} times, next try in ${durationText(retryAtMs - nowMs)})`
      : ''
  if (reason !== undefined) return `${reason.code}: ${reason.message.split('\n')[0]}${tries}`
  return limited === undefined ? '' : `${limited.code}: ${limited.message}`
}

function inventoryLines({ inventory }: NodeView): string[] {
  if (inventory === undefined) return []
  const { ports, runtimes } = inventory
  return [
    `host: ${inventory.os}, kernel ${inventory.kernel}, ${inventory.cores} cores, ${inventory.memoryMiB} MiB`,
    `agent: ${inventory.agentVersion}, engine ${inventory.engine} ${inventory.engineVersion}, runtimes ${runtimes.join(', ') || 'none'}`,
    `ports: HTTP ${ports.http}, CoAP ${ports.coap}, gRPC ${ports.grpc} (0 = off)`,
  ]
}

function hostLines({ heartbeat }: NodeView): string[] {
  if (heartbeat === undefined) return []
  const { host, probe } = heartbeat
  const cpu = `${Math.round(host.cpuShare * 100)} % CPU`
  const lines = [
    `now: ${cpu}, ${host.memoryFreeMiB} of ${host.memoryMiB} MiB memory free, ${host.diskFreeMiB} of ${host.diskMiB} MiB disk free`,
  ]
  if (probe?.ok === false)
    lines.push(`probe: cannot start a container: ${probe.error ?? 'unknown'}`)
  return lines
}
