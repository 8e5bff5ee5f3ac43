import { Command } from 'commander'
import { openClient, type CliContext } from '../context.ts'
import { writeJson } from '../output.ts'
import { duration, integer } from '../values.ts'

interface Options {
  readonly ttl?: number
  readonly uses?: number
  readonly json?: boolean
}

/** `shoal node token`: what a new node joins with. */
export function nodeTokenCommand(context: CliContext): Command {
  return new Command('token')
    .description('make a token that lets a new node join')
    .option('--ttl <duration>', 'how long it is good, e.g. 1h', duration)
    .option('--uses <count>', 'how many nodes may join with it', integer(1, 100_000))
    .option('--json', 'print the JSON document')
    .action(async (options: Options, command: Command) => {
      const client = await openClient(context, command)
      const { ttl: ttlMs, uses } = options
      const made = await client.createToken({ ttlMs, uses }, context.signal)
      if (options.json === true) {
        writeJson(context.out, made)
        return
      }
      // Only the token on stdout, so that it can be piped on.
      context.out.write(`${made.token}\n`)
      const until = new Date(made.expiresAtMs).toISOString()
      context.out.note(
        `good until ${until}; on the new node: SHOAL_JOIN_TOKEN=<token> for its agent\n`,
      )
      if (made.warning !== undefined) context.out.note(`warning: ${made.warning}\n`)
    })
}
