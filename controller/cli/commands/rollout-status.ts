import { Command } from 'commander'
import { openClient, type CliContext } from '../context.ts'
import { exitCodeOf } from '../exit-codes.ts'
import { followRollout } from '../follow-rollout.ts'
import { writeJson } from '../output.ts'
import { rolloutLines, rolloutSummary } from '../rollout-view.ts'

/** `shoal rollout status <id>`: one line per node, worst first; the exit code tells the state. */
export function rolloutStatusCommand(context: CliContext): Command {
  return new Command('status')
    .description('show how far a rollout is on every node')
    .argument('<rollout>', 'rollout id, as printed by `shoal fn deploy`')
    .option('--watch', 'follow it to its end')
    .option('--json', 'print the JSON document (with --watch: when it ends)')
    .action(async (id: string, options: { watch?: boolean; json?: boolean }, command: Command) => {
      const { out, signal, nowMs } = context
      const client = await openClient(context, command)
      let rollout = await client.rollout(id, signal)
      const json = options.json === true
      const title = `rollout ${rollout.id}: ${rollout.function} ${rollout.release} to "${rollout.selector}"`
      if (!json) out.write(`${title}\n`)
      if (options.watch === true && rollout.state === 'rolling') {
        rollout = await followRollout(context, client, rollout, json)
      } else if (!json) {
        for (const line of rolloutLines(out, rollout, nowMs())) out.write(`${line}\n`)
        out.write(`${rolloutSummary(out, rollout, nowMs())}\n`)
      }
      if (json) writeJson(out, rollout)
      context.exitWith(exitCodeOf(rollout.state))
    })
}
