import { Command } from 'commander'
import type { FunctionView } from '#shared/schemas/api.ts'
import { openClient, type CliContext } from '../context.ts'
import { writeJson } from '../output.ts'
import { bytesText, durationText, table } from '../table.ts'

/** `shoal fn show <name>`: settings, nodes, releases. */
export function fnShowCommand(context: CliContext): Command {
  return new Command('show')
    .description('show one function: its settings, nodes and releases')
    .argument('<name>', 'function')
    .option('--json', 'print the JSON document')
    .action(async (name: string, options: { json?: boolean }, command: Command) => {
      const client = await openClient(context, command)
      const fn = await client.function(name, context.signal)
      if (options.json === true) writeJson(context.out, fn)
      else context.out.write(functionText(fn, context.nowMs()))
    })
}

/** Pure, so the text is tested as text. */
export function functionText(fn: FunctionView, nowMs: number): string {
  const { settings, placements } = fn
  const head = [`${fn.name}, newest release ${fn.latestRelease}`]
  for (const { selector, release } of placements) {
    head.push(`placed on "${selector}" with release ${release}`)
  }
  if (settings !== undefined) {
    const { env, ...rest } = settings
    const pairs = Object.entries(rest).map(([name, value]) => `${name} ${value}`)
    head.push(`settings: ${pairs.join(', ')}`)
    // Values may be secrets.
    const names = Object.keys(env)
    if (names.length > 0) head.push(`environment: ${names.join(', ')}`)
  }
  const nodes = fn.nodes.map(({ node, release, state, reason }) => [
    node,
    state,
    release,
    reason === undefined ? '' : `${reason.code}: ${reason.message.split('\n')[0]}`,
  ])
  const releases = fn.releases.map((release) => [
    release.id,
    release.runtime,
    release.entry ?? '',
    release.arch,
    bytesText(release.bytes),
    `${durationText(nowMs - release.createdAtMs)} ago`,
  ])
  return [
    `${head.join('\n')}\n`,
    table(['NODE', 'STATE', 'RELEASE', 'REASON'], nodes, 'on no node'),
    table(['RELEASE', 'RUNTIME', 'ENTRY', 'ARCH', 'SIZE', 'MADE'], releases, 'no releases'),
  ].join('\n')
}
