import { Command } from 'commander'
import type { Removal } from '#shared/schemas/api.ts'
import { openClient, type CliContext } from '../context.ts'
import { EXIT } from '../exit-codes.ts'
import { writeJson } from '../output.ts'

/** `shoal fn rm <name>`: from the catalogue and from all nodes. */
export function fnRmCommand(context: CliContext): Command {
  return new Command('rm')
    .description('remove a function from all nodes and from the catalogue')
    .argument('<name>', 'function')
    .option('--json', 'print the JSON document')
    .action(async (name: string, options: { json?: boolean }, command: Command) => {
      const client = await openClient(context, command)
      reportRemoval(context, await client.removeFunction(name, context.signal), options.json)
    })
}

/** Says what is gone; nodes that have not confirmed make it "waiting". */
export function reportRemoval(context: CliContext, removal: Removal, json?: boolean): void {
  if (json === true) writeJson(context.out, removal)
  else {
    const { removed, pending } = removal
    context.out.write(
      removed.length === 0 ? 'nothing to remove\n' : `removed ${removed.join(', ')}\n`,
    )
    if (pending.length > 0) {
      context.out.write(`not confirmed yet (offline or slow): ${pending.join(', ')}\n`)
    }
  }
  if (removal.pending.length > 0) context.exitWith(EXIT.waiting)
}
