import { Command } from 'commander'
import type { NodeLogLine } from '#shared/schemas/api.ts'
import { openClient, type CliContext } from '../context.ts'
import { paint, writeJson, type Output } from '../output.ts'
import { integer } from '../values.ts'

const COLOUR = { debug: 'gray', info: 'reset', warn: 'yellow', error: 'red' } as const

interface Options {
  readonly follow?: boolean
  readonly tail: number
  readonly node?: string
  readonly json?: boolean
}

/** `shoal fn logs <name> [-f]`: what the function wrote. */
export function fnLogsCommand(context: CliContext): Command {
  return new Command('logs')
    .description('show what a function wrote')
    .argument('<name>', 'function')
    .option('-f, --follow', 'go on with new lines until Ctrl+C')
    .option('--tail <count>', 'older lines to begin with, of each node', integer(0, 10_000), 100)
    .option('--node <id>', 'of one node only')
    .option('--json', 'one JSON document per line')
    .action(async (name: string, options: Options, command: Command) => {
      const client = await openClient(context, command)
      const { tail, follow, node } = options
      try {
        for await (const line of client.logs(name, { tail, follow, node }, context.signal)) {
          if (options.json === true) writeJson(context.out, line)
          else context.out.write(`${logText(context.out, line)}\n`)
        }
      } catch (error) {
        // Ctrl+C is how following is meant to end.
        if (follow !== true || !context.signal.aborted) throw error
      }
    })
}

/** Pure, so the line is tested as text. */
export function logText(out: Output, line: NodeLogLine): string {
  const time = paint(out, 'gray', new Date(line.atMs).toISOString())
  const level = paint(out, COLOUR[line.level], line.level.padEnd(5))
  return `${time} ${line.node}/${line.handler} ${level} ${line.text}`
}
