import { Command } from 'commander'
import { connectionOptions, type CliContext } from '../context.ts'
import {
  checkDataFolder,
  checkDisk,
  checkEngine,
  checkImages,
  checkToken,
} from '../doctor/local-checks.ts'
import type { CheckLevel, CheckResult, DoctorInput } from '../doctor/model.ts'
import { checkApi, checkNats, checkNodes, checkPorts } from '../doctor/remote-checks.ts'
import { EXIT } from '../exit-codes.ts'
import { paint, writeJson, type Output } from '../output.ts'

const COLOUR = { ok: 'green', warn: 'yellow', fail: 'red' } as const satisfies Record<
  CheckLevel,
  string
>

/** `shoal doctor`: each part in one line, with what to do. Exits 1 when one fails. */
export function doctorCommand(context: CliContext): Command {
  return new Command('doctor')
    .description('check this installation part by part')
    .option('--json', 'print the JSON document')
    .action(async (options: { json?: boolean }, command: Command) => {
      const input = { options: connectionOptions(command), env: context.env }
      const checks = await runChecks(input, context.signal)
      const healthy = checks.every(({ level }) => level !== 'fail')
      if (options.json === true) writeJson(context.out, { healthy, checks })
      else context.out.write(checkText(context.out, checks))
      context.exitWith(healthy ? EXIT.done : EXIT.failed)
    })
}

async function runChecks(input: DoctorInput, signal: AbortSignal): Promise<CheckResult[]> {
  const api = await checkApi(input, signal)
  const local = await Promise.all([checkDataFolder(input), checkToken(input)])
  const parts = await Promise.all([
    checkEngine(input, signal),
    checkImages(input, signal),
    checkPorts(api.nodes, input.env, signal),
    checkDisk(input),
  ])
  const nats = await checkNats(input, signal)
  return [...local, api.result, nats, checkNodes(api.nodes), ...parts]
}

/** Pure, so the text is tested as text. */
export function checkText(out: Output, checks: readonly CheckResult[]): string {
  const width = Math.max(...checks.map(({ check }) => check.length))
  const lines = checks.flatMap(({ check, level, message, hint }) => [
    `${paint(out, COLOUR[level], level.padEnd(4))}  ${check.padEnd(width)}  ${message}`,
    ...(hint === undefined ? [] : [`      ${' '.repeat(width)}  -> ${hint}`]),
  ])
  return `${lines.join('\n')}\n`
}
