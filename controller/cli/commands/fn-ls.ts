import { Command } from 'commander'
import type { FunctionView } from '#shared/schemas/api.ts'
import { openClient, type CliContext } from '../context.ts'
import { paint, writeJson, type Output } from '../output.ts'
import { durationText, table } from '../table.ts'

/** `shoal fn ls`: one line per function. */
export function fnLsCommand(context: CliContext): Command {
  return new Command('ls')
    .description('list the functions')
    .option('--json', 'print the JSON document')
    .action(async (options: { json?: boolean }, command: Command) => {
      const client = await openClient(context, command)
      const functions = await client.functions(context.signal)
      if (options.json === true) writeJson(context.out, { functions })
      else context.out.write(functionTable(context.out, functions, context.nowMs()))
    })
}

/** `2`, or `0-8` when calls decide. */
function replicasText({ settings }: FunctionView): string {
  if (settings === undefined) return '-'
  const { replicas, replicasMax = replicas } = settings
  return replicasMax > replicas ? `${replicas}-${replicasMax}` : String(replicas)
}

/** Pure, so the table is tested as text. */
export function functionTable(
  out: Output,
  functions: readonly FunctionView[],
  nowMs: number,
): string {
  const rows = functions
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .map((fn) => {
      const newest = fn.releases.find((release) => release.id === fn.latestRelease)
      const ready = fn.nodes.filter((node) => node.state === 'ready').length
      const share = `${ready}/${fn.nodes.length}`
      return [
        fn.name,
        newest?.runtime ?? '?',
        fn.latestRelease,
        ready === fn.nodes.length ? share : paint(out, 'yellow', share),
        replicasText(fn),
        newest === undefined ? '?' : `${durationText(nowMs - newest.createdAtMs)} ago`,
      ]
    })
  const head = ['NAME', 'RUNTIME', 'RELEASE', 'READY', 'REPLICAS', 'RELEASED']
  return table(head, rows, 'no functions yet; `shoal fn deploy <folder>` makes one')
}
