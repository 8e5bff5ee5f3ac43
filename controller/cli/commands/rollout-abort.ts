import { Command } from 'commander'
import { openClient, type CliContext } from '../context.ts'
import { EXIT, exitCodeOf } from '../exit-codes.ts'
import { writeJson } from '../output.ts'
import { rolloutSummary } from '../rollout-view.ts'

/** `shoal rollout abort <id>`. Exits 0 when it is aborted, else as the state that it had already reached. */
export function rolloutAbortCommand(context: CliContext): Command {
  return new Command('abort')
    .description('stop a rollout; nodes keep what they have')
    .argument('<rollout>', 'rollout id')
    .option('--json', 'print the JSON document')
    .action(async (id: string, options: { json?: boolean }, command: Command) => {
      const { out, signal, nowMs } = context
      const client = await openClient(context, command)
      const rollout = await client.abortRollout(id, signal)
      if (options.json === true) writeJson(out, rollout)
      else out.write(`${rolloutSummary(out, rollout, nowMs())}\n`)
      context.exitWith(rollout.state === 'aborted' ? EXIT.done : exitCodeOf(rollout.state))
    })
}
