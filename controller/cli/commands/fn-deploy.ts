import path from 'node:path'
import { Command } from 'commander'
import type { ApiClient } from '#controller/api-client/index.ts'
import { Fault } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import type { NodeView, Release, Rollout } from '#shared/schemas/api.ts'
import type { FunctionSettings } from '#shared/schemas/command.ts'
import type { Arch, Runtime } from '#shared/schemas/names.ts'
import { callExamples } from '../call-examples.ts'
import { openClient, type CliContext } from '../context.ts'
import { exitCodeOf, EXIT } from '../exit-codes.ts'
import { followRollout } from '../follow-rollout.ts'
import { paint, writeJson } from '../output.ts'
import { packFolder } from '../pack-folder.ts'
import { bytesText, durationText } from '../table.ts'
import {
  duration,
  durationOrNever,
  envPairs,
  functionName,
  integer,
  isolation,
  memory,
  network,
  positive,
  runtime,
  type Isolation,
} from '../values.ts'

interface Options {
  readonly name?: string
  readonly runtime?: Runtime
  readonly arch?: Arch
  readonly replicas?: number
  readonly replicasMax?: number
  readonly idle?: number
  readonly isolation?: Isolation
  readonly env?: Readonly<Record<string, string>>
  readonly nodes: string
  readonly memory?: number
  readonly cpus?: number
  readonly timeout?: number
  readonly concurrency?: number
  readonly idempotent?: boolean
  readonly network?: 'none' | 'outbound'
  readonly deadline?: number
  readonly wait: boolean
  readonly json?: boolean
}

/** `shoal fn deploy <folder>`: pack, build, roll out, follow to the end, say how to call it. */
export function fnDeployCommand(context: CliContext): Command {
  const deployCommand = new Command('deploy')
    .description('build a folder and roll it out; follows the rollout to its end')
    .argument('<folder>', 'folder that holds the function (see .shoalignore in the README)')
    .option('--name <name>', "function name; default: the folder's own name", functionName)
    .option(
      '--runtime <runtime>',
      'nodejs, python3 or binary; default: found from the files',
      runtime,
    )
    .option('--arch <arch>', 'amd64 or arm64, for dependencies; default: that of the controller')
    .option(
      '--nodes <selector>',
      '`*`, or `key=value`, `key!=value`, a node id; joined by commas',
      '*',
    )
  return addSettings(deployCommand, context)
    .option('--deadline <duration>', 'for the whole rollout; default 2m', duration)
    .option('--no-wait', 'return when the rollout has begun')
    .option('--json', 'one JSON document on stdout at the end; the build log goes to stderr')
    .action(async (folder: string, options: Options, command: Command) => {
      await deploy(context, folder, options, command)
    })
}

/** One option per setting of the function. */
function addSettings(command: Command, context: CliContext): Command {
  return command
    .option(
      '--replicas <count>',
      'handlers on each node; 0: none while nobody calls',
      integer(0, LIMITS.replicasMax),
    )
    .option(
      '--replicas-max <count>',
      'handlers on each node when calls need them',
      integer(1, LIMITS.replicasMax),
    )
    .option(
      '--idle <duration>',
      'with --replicas 0: paused after so long without a call, e.g. 5m; `never`',
      durationOrNever,
    )
    .option(
      '--isolation <mode>',
      'shared, single (one call at a time in a handler) or fresh (a handler per call)',
      isolation,
    )
    .option(
      '--env <NAME=value>',
      'environment of the function; may be repeated',
      envPairs(context.env),
    )
    .option('--memory <amount>', 'of each handler, e.g. 256m', memory)
    .option('--cpus <count>', 'of each handler, e.g. 0.5', positive)
    .option('--timeout <duration>', 'of one call, e.g. 30s', duration)
    .option('--concurrency <count>', 'calls at once in each handler', integer(1, 1024))
    .option('--idempotent', 'a call may be sent to a second handler when its first one dies')
    .option('--no-idempotent', 'a call is sent once, whatever becomes of its handler; the default')
    .option('--network <mode>', 'none or outbound', network)
}

async function deploy(
  context: CliContext,
  folder: string,
  options: Options,
  command: Command,
): Promise<void> {
  const { out, signal } = context
  const name = options.name ?? nameOf(folder)
  const client = await openClient(context, command)
  const { release, cached } = await build(context, client, folder, name, options)
  const begun = await client.createRollout(
    {
      function: name,
      release: release.id,
      selector: options.nodes,
      settings: settingsOf(options),
      deadlineMs: options.deadline,
    },
    signal,
  )
  const say = (text: string) => (options.json === true ? undefined : out.write(text))
  const count = begun.nodes.length === 1 ? '1 node' : `${begun.nodes.length} nodes`
  say(`rollout ${begun.id} to ${count} ("${begun.selector}")\n`)
  const rollout = options.wait ? await follow(context, client, begun, options.json === true) : begun
  if (options.json === true) writeJson(out, { function: name, release, cached, rollout })
  if (!options.wait) {
    say(`it goes on: shoal rollout status ${rollout.id} --watch\n`)
    return
  }
  if (rollout.state === 'done' && options.json !== true)
    await sayHowToCall(context, client, rollout)
  if (rollout.state === 'waiting') say('offline nodes get it when they return\n')
  context.exitWith(exitCodeOf(rollout.state))
}

async function follow(
  context: CliContext,
  client: ApiClient,
  begun: Rollout,
  quiet: boolean,
): Promise<Rollout> {
  try {
    return await followRollout(context, client, begun, quiet)
  } catch (error) {
    if (!context.signal.aborted) throw error
    context.out.note(
      `the rollout goes on: shoal rollout status ${begun.id} --watch, or shoal rollout abort ${begun.id}\n`,
    )
    context.exitWith(EXIT.interrupted)
    throw error
  }
}

async function build(
  context: CliContext,
  client: ApiClient,
  folder: string,
  name: string,
  options: Options,
): Promise<{ release: Release; cached: boolean }> {
  const { out, signal, nowMs } = context
  const startMs = nowMs()
  // The words of the build are not the answer when that is to be JSON.
  const say = (text: string) => (options.json === true ? out.note(text) : out.write(text))
  const packed = await packFolder(folder, signal)
  const files = packed.files === 1 ? 'file' : 'files'
  say(`deploying ${name}: ${packed.files} ${files}, ${bytesText(packed.bytes)}\n`)
  const body = packed.tar
  const source = { kind: 'archive', type: 'application/x-tar', body } as const
  const { runtime: wanted, arch } = options
  const result = await client.createRelease(
    name,
    { source, runtime: wanted, arch, selector: options.nodes },
    (line) => say(`  ${paint(out, 'gray', line)}\n`),
    signal,
  )
  const { release } = result
  const took = durationText(nowMs() - startMs)
  const what = `${release.runtime}, ${bytesText(release.bytes)}, ${took}`
  say(`release ${release.id} (${what})${result.cached ? ', unchanged' : ''}\n`)
  return result
}

function nameOf(folder: string): string {
  const name = path.basename(path.resolve(folder))
  try {
    return functionName(name)
  } catch (cause) {
    const message = `the folder's name "${name}" is no function name: pass --name`
    throw new Fault('REQUEST_INVALID', message, {}, { cause })
  }
}

/** Only what was given: the rest stays as the last rollout had it. */
function settingsOf(options: Options): Partial<FunctionSettings> {
  const { replicas, replicasMax, idle: idleMs, isolation: isolated, network: net } = options
  const { env, memory: memoryMiB, cpus, timeout: timeoutMs, concurrency, idempotent } = options
  const scale = { replicas, replicasMax, idleMs, isolation: isolated, concurrency }
  const all = { ...scale, idempotent, env, memoryMiB, cpus, timeoutMs, network: net }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
}

async function sayHowToCall(
  context: CliContext,
  client: ApiClient,
  rollout: Rollout,
): Promise<void> {
  const ready = rollout.nodes.filter((node) => node.state === 'ready').map((node) => node.node)
  const first = ready[0]
  let node: NodeView | undefined
  try {
    if (first !== undefined) node = await client.node(first, context.signal)
  } catch {
    // The deployment is done; that the examples are poorer is no reason to fail.
  }
  const lines = callExamples({ name: rollout.function, url: client.url, node, nodes: ready.length })
  context.out.write(`${lines.join('\n')}\n`)
}
