import { Command } from 'commander'
import { Fault } from '#shared/fault.ts'
import { openClient, type CliContext } from '../context.ts'
import { reportRemoval } from './fn-rm.ts'

/** `shoal fn wipe --yes`: all functions. */
export function fnWipeCommand(context: CliContext): Command {
  return new Command('wipe')
    .description('remove ALL functions from all nodes and from the catalogue')
    .option('--yes', 'really do it')
    .option('--json', 'print the JSON document')
    .action(async (options: { yes?: boolean; json?: boolean }, command: Command) => {
      const client = await openClient(context, command)
      if (options.yes !== true) {
        const count = (await client.functions(context.signal)).length
        throw new Fault(
          'REQUEST_INVALID',
          `this removes all functions (now ${count}) from all nodes: say --yes when that is meant`,
        )
      }
      reportRemoval(context, await client.wipe(context.signal), options.json)
    })
}
