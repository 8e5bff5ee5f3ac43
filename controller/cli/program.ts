import { Command, CommanderError } from 'commander'
import { Fault } from '#shared/fault.ts'
import { doctorCommand } from './commands/doctor.ts'
import { fnDeployCommand } from './commands/fn-deploy.ts'
import { fnInvokeCommand } from './commands/fn-invoke.ts'
import { fnLogsCommand } from './commands/fn-logs.ts'
import { fnLsCommand } from './commands/fn-ls.ts'
import { fnRmCommand } from './commands/fn-rm.ts'
import { fnShowCommand } from './commands/fn-show.ts'
import { fnWipeCommand } from './commands/fn-wipe.ts'
import { nodeLsCommand } from './commands/node-ls.ts'
import { nodeRmCommand } from './commands/node-rm.ts'
import { nodeShowCommand } from './commands/node-show.ts'
import { nodeTokenCommand } from './commands/node-token.ts'
import { rolloutAbortCommand } from './commands/rollout-abort.ts'
import { rolloutLsCommand } from './commands/rollout-ls.ts'
import { rolloutStatusCommand } from './commands/rollout-status.ts'
import { locateApi, type ConnectionOptions } from './connection.ts'
import type { CliContext } from './context.ts'
import { EXIT, EXIT_HELP, type ExitCode } from './exit-codes.ts'
import { hintFor } from './hints.ts'
import { paint, type Output } from './output.ts'
import packageFile from '../../package.json' with { type: 'json' }

/** The whole command tree, not run yet. */
export function buildProgram(context: CliContext): Command {
  const program = new Command('shoal')
    .description('Functions on every node of an edge fleet')
    .version(packageFile.version)
    .option('--url <url>', 'of the controller (SHOAL_API_URL); default: from the data folder')
    .option('--token <token>', 'of the controller (SHOAL_API_TOKEN); default: from the data folder')
    .option('--data-folder <folder>', 'data folder (SHOAL_DATA); default ~/.local/share/shoal')
    .option('--debug', 'show where an error came from')
    .addHelpText('after', EXIT_HELP)
  const groups = [
    group('fn', 'functions', [
      fnDeployCommand(context),
      fnLsCommand(context),
      fnShowCommand(context),
      fnRmCommand(context),
      fnInvokeCommand(context),
      fnLogsCommand(context),
      fnWipeCommand(context),
    ]),
    group('node', 'nodes of the fleet', [
      nodeLsCommand(context),
      nodeShowCommand(context),
      nodeRmCommand(context),
      nodeTokenCommand(context),
    ]),
    group('rollout', 'rollouts', [
      rolloutLsCommand(context),
      rolloutStatusCommand(context),
      rolloutAbortCommand(context),
    ]),
    doctorCommand(context),
  ]
  for (const command of groups) program.addCommand(command)
  settle(program, context.out)
  return program
}

/** Runs one command line and says what the process shall end with; everything it prints goes to the context. */
export async function runCli(
  argv: readonly string[],
  outside: Omit<CliContext, 'exitWith'>,
): Promise<ExitCode> {
  let code: ExitCode = EXIT.done
  const context: CliContext = {
    ...outside,
    exitWith(wanted) {
      code = wanted
    },
  }
  const program = buildProgram(context)
  try {
    await program.parseAsync([...argv], { from: 'user' })
    return code
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.code === 'commander.unknownCommand') suggest(program, context.out)
      return error.exitCode === 0 ? EXIT.done : EXIT.failed
    }
    if (context.signal.aborted) return EXIT.interrupted
    const options = program.opts<ConnectionOptions & { debug?: boolean }>()
    explain(error, context.out, options.debug === true)
    if (Fault.is(error, 'CONTROLLER_UNREACHABLE')) {
      const { from } = await locateApi(options, context.env)
      context.out.note(
        `        the address is from ${from}; SHOAL_DATA or --url name another one\n`,
      )
    }
    return EXIT.failed
  }
}

/** Commander looks among a command's siblings; who types `shoal deploy` means `shoal fn deploy`. */
function suggest(program: Command, out: Output): void {
  const [wanted = ''] = program.args
  const groups = program.commands.filter(({ commands }) =>
    commands.some((command) => command.name() === wanted),
  )
  if (groups.length === 0) return
  out.note(`  hint: ${groups.map((each) => `shoal ${each.name()} ${wanted}`).join(', or ')}\n`)
}

/** One line with the code, one with what to do; with `--debug` also where it came from. */
function explain(error: unknown, out: Output, debug: boolean): void {
  const fault = Fault.from(error)
  out.note(`shoal: ${paint(out, 'red', fault.code)}: ${fault.message}\n`)
  const hint = hintFor(fault.code)
  if (hint !== undefined) out.note(`  hint: ${hint}\n`)
  for (let at: unknown = debug ? error : undefined; at instanceof Error; at = at.cause) {
    out.note(`${at.stack ?? at.message}\n`)
  }
}

function group(name: string, description: string, commands: readonly Command[]): Command {
  const parent = new Command(name).description(description)
  for (const command of commands) parent.addCommand(command)
  return parent
}

/** Commander's own words go where ours go, and it never ends the process. */
function settle(command: Command, out: Output): void {
  command.exitOverride().showHelpAfterError('(--help shows how it is used)')
  command.configureOutput({
    writeOut: (text) => out.write(text),
    writeErr: (text) => out.note(text),
    getOutHelpWidth: () => Math.min(out.columns, 120),
    getErrHelpWidth: () => Math.min(out.columns, 120),
  })
  for (const child of command.commands) settle(child, out)
}
