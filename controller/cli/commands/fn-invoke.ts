import { readFile } from 'node:fs/promises'
import { STATUS_CODES } from 'node:http'
import { buffer } from 'node:stream/consumers'
import { Command } from 'commander'
import { Fault } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import { openClient, type CliContext } from '../context.ts'
import { EXIT } from '../exit-codes.ts'
import { headerPairs } from '../values.ts'

interface Options {
  readonly data?: string
  readonly file?: string
  readonly header?: Readonly<Record<string, string>>
  readonly method: string
  readonly path?: string
  readonly node?: string
}

/** `shoal fn invoke <name> [-]`: the body of the answer on stdout, its status on stderr when it is no success. */
export function fnInvokeCommand(context: CliContext): Command {
  return new Command('invoke')
    .description('call a function through a node')
    .argument('<name>', 'function')
    .argument('[input]', '`-` reads the body from stdin')
    .option('--data <text>', 'the body')
    .option('--file <path>', 'the body, from a file')
    .option('--header <name: value>', 'header for the function; may be repeated', headerPairs)
    .option('--method <method>', 'as in HTTP', 'POST')
    .option('--path <rest>', "what follows the function's name, e.g. /sensors/3?unit=c")
    .option('--node <id>', 'default: any online node that serves it')
    .action(async (name: string, input: string | undefined, options: Options, command: Command) => {
      await invoke(context, name, input, options, command)
    })
}

async function invoke(
  context: CliContext,
  name: string,
  input: string | undefined,
  options: Options,
  command: Command,
): Promise<void> {
  const { out, signal } = context
  const body = await readBody(context, input, options)
  if (body.length > LIMITS.natsBodyBytesMax) {
    throw new Fault(
      'BODY_TOO_LARGE',
      `the body has ${body.length} bytes; through the controller ${LIMITS.natsBodyBytesMax} can travel: call the node directly`,
    )
  }
  const client = await openClient(context, command)
  const { method, path, node, header } = options
  const contentType = body.length === 0 ? {} : { 'content-type': 'text/plain; charset=utf-8' }
  const answer = await client.invoke(
    name,
    { method: method.toUpperCase(), path, headers: { ...contentType, ...header }, body, node },
    signal,
  )
  for await (const chunk of answer.body) out.write(chunk)
  if (answer.status >= 200 && answer.status < 300) return
  out.note(`status ${answer.status} ${STATUS_CODES[answer.status] ?? ''}`.trimEnd() + '\n')
  context.exitWith(EXIT.failed)
}

async function readBody(
  context: CliContext,
  input: string | undefined,
  { data, file }: Options,
): Promise<Buffer> {
  const given = [data, file, input].filter((value) => value !== undefined)
  if (given.length > 1) {
    throw new Fault('REQUEST_INVALID', 'give the body once: --data, --file or - (stdin)')
  }
  if (input !== undefined && input !== '-') {
    throw new Fault(
      'REQUEST_INVALID',
      `"${input}": pass text by --data, a file by --file, stdin by -`,
    )
  }
  if (data !== undefined) return Buffer.from(data)
  if (input === '-') return buffer(context.stdin)
  if (file === undefined) return Buffer.alloc(0)
  return readFile(file).catch((cause: unknown) => {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new Fault('REQUEST_INVALID', `cannot read ${file}: ${why}`, {}, { cause })
  })
}
