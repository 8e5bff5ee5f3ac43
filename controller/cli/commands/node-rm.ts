import { Command } from 'commander'
import { openClient, type CliContext } from '../context.ts'
import { writeJson } from '../output.ts'

/** `shoal node rm <id>`: forgets a node. */
export function nodeRmCommand(context: CliContext): Command {
  return new Command('rm')
    .description('forget a node; it comes back when its agent is started with a new join token')
    .argument('<id>', 'node')
    .option('--json', 'print the JSON document')
    .action(async (id: string, options: { json?: boolean }, command: Command) => {
      const client = await openClient(context, command)
      await client.removeNode(id, context.signal)
      if (options.json === true) writeJson(context.out, { removed: id })
      else context.out.write(`removed ${id}\n`)
    })
}
