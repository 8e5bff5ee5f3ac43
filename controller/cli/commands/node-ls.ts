import { Command } from 'commander'
import type { NodeView } from '#shared/schemas/api.ts'
import { openClient, type CliContext } from '../context.ts'
import { paint, writeJson, type Output } from '../output.ts'
import { durationText, table } from '../table.ts'

/** `shoal node ls`: one line per node. */
export function nodeLsCommand(context: CliContext): Command {
  return new Command('ls')
    .description('list the nodes')
    .option('--json', 'print the JSON document')
    .action(async (options: { json?: boolean }, command: Command) => {
      const client = await openClient(context, command)
      const nodes = await client.nodes(context.signal)
      if (options.json === true) writeJson(context.out, { nodes })
      else context.out.write(nodeTable(context.out, nodes, context.nowMs()))
    })
}

/** Pure, so the table is tested as text. */
export function nodeTable(out: Output, nodes: readonly NodeView[], nowMs: number): string {
  const rows = nodes
    .toSorted((a, b) => (a.id < b.id ? -1 : 1))
    .map((node) => [
      node.id,
      node.online ? paint(out, 'green', 'online') : paint(out, 'red', 'offline'),
      node.lastSeenMs === 0 ? 'never' : `${durationText(nowMs - node.lastSeenMs)} ago`,
      node.arch,
      node.inventory?.engine ?? '-',
      functionsText(node),
      labelsText(node),
    ])
  const head = ['NODE', 'STATE', 'SEEN', 'ARCH', 'ENGINE', 'FUNCTIONS', 'LABELS']
  return table(head, rows, 'no nodes yet; `shoal node token` makes a token to join with')
}

function functionsText({ heartbeat }: NodeView): string {
  if (heartbeat === undefined) return '-'
  const ready = heartbeat.functions.filter((fn) => fn.state === 'ready').length
  return `${ready}/${heartbeat.functions.length}`
}

export function labelsText({ labels }: NodeView): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(',')
}
