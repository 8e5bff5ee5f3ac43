import { Command } from 'commander'
import type { Rollout } from '#shared/schemas/api.ts'
import { openClient, type CliContext } from '../context.ts'
import { writeJson } from '../output.ts'
import { durationText, table } from '../table.ts'

/** `shoal rollout ls`: newest first. */
export function rolloutLsCommand(context: CliContext): Command {
  return new Command('ls')
    .description('list the rollouts, newest first')
    .option('--function <name>', 'of one function only')
    .option('--json', 'print the JSON document')
    .action(async (options: { function?: string; json?: boolean }, command: Command) => {
      const client = await openClient(context, command)
      const rollouts = await client.rollouts(options.function, context.signal)
      if (options.json === true) writeJson(context.out, { rollouts })
      else context.out.write(rolloutTable(rollouts, context.nowMs()))
    })
}

/** Pure, so the table is tested as text. */
export function rolloutTable(rollouts: readonly Rollout[], nowMs: number): string {
  const rows = rollouts
    .toSorted((a, b) => b.createdAtMs - a.createdAtMs)
    .map((rollout) => {
      const ready = rollout.nodes.filter((node) => node.state === 'ready').length
      return [
        rollout.id,
        rollout.function,
        rollout.release,
        rollout.selector,
        rollout.state,
        `${ready}/${rollout.nodes.length}`,
        `${durationText(nowMs - rollout.createdAtMs)} ago`,
        rollout.reason ?? '',
      ]
    })
  const head = ['ROLLOUT', 'FUNCTION', 'RELEASE', 'NODES', 'STATE', 'READY', 'BEGUN', '']
  return table(head, rows, 'no rollouts yet')
}
