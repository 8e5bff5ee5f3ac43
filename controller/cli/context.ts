import type { Readable } from 'node:stream'
import type { Command } from 'commander'
import { ApiClient } from '#controller/api-client/index.ts'
import { findConnection, type ConnectionOptions, type Env } from './connection.ts'
import type { ExitCode } from './exit-codes.ts'
import type { Output } from './output.ts'

/** What a command needs from outside. */
export interface CliContext {
  readonly out: Output
  readonly stdin: Readable
  readonly env: Env
  /** Aborts on Ctrl+C and SIGTERM. */
  readonly signal: AbortSignal
  readonly nowMs: () => number
  /** What the process shall end with; the last word counts. */
  exitWith(code: ExitCode): void
}

/** The options that stand on the program itself, wherever on the line they were written. */
export function connectionOptions(command: Command): ConnectionOptions {
  const { url, token, dataFolder } = command.optsWithGlobals<ConnectionOptions>()
  return { url, token, dataFolder }
}

/** @throws Fault `CONFIG_INVALID`, `UNAUTHENTICATED` */
export async function openClient(context: CliContext, command: Command): Promise<ApiClient> {
  return new ApiClient(await findConnection(connectionOptions(command), context.env))
}
