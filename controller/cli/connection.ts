import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import path from 'node:path'
import { Fault } from '#shared/fault.ts'

export type Env = Readonly<Record<string, string | undefined>>

/** Options of every command that say where the controller is. */
export interface ConnectionOptions {
  readonly url?: string | undefined
  readonly token?: string | undefined
  readonly dataFolder?: string | undefined
}

export interface Connection {
  readonly url: string
  readonly token: string
}

export function dataFolder(options: ConnectionOptions, env: Env): string {
  const set = options.dataFolder ?? nonEmpty(env['SHOAL_DATA'])
  return path.resolve(set ?? path.join(nonEmpty(env['HOME']) ?? homedir(), '.local/share/shoal'))
}

export function apiUrl({ url }: ConnectionOptions, env: Env): string {
  const set = url ?? nonEmpty(env['SHOAL_API_URL'])
  if (set !== undefined) return checkedUrl(set)
  const host = nonEmpty(env['SHOAL_API_HOST']) ?? '127.0.0.1'
  // Where it listens on all addresses, it is reached by loopback.
  const reached = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host
  const shown = reached.includes(':') ? `[${reached}]` : reached
  return checkedUrl(`http://${shown}:${nonEmpty(env['SHOAL_API_PORT']) ?? '7420'}`)
}

export function tokenFile(options: ConnectionOptions, env: Env): string {
  return path.join(dataFolder(options, env), 'controller', 'api-token')
}

/**
 * Options, then `SHOAL_API_URL` and `SHOAL_API_TOKEN`, then the data folder and its default address.
 *
 * @throws Fault `CONFIG_INVALID`, `UNAUTHENTICATED` (no token anywhere)
 */
export async function findConnection(options: ConnectionOptions, env: Env): Promise<Connection> {
  const url = apiUrl(options, env)
  const given = options.token ?? nonEmpty(env['SHOAL_API_TOKEN'])
  if (given !== undefined) return { url, token: given.trim() }
  const file = tokenFile(options, env)
  try {
    return { url, token: (await readFile(file, 'utf8')).trim() }
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown'
    const why = code === 'EACCES' ? 'may not be read by this user' : 'is not there'
    throw new Fault(
      'UNAUTHENTICATED',
      `no token: ${file} ${why}, and neither --token nor SHOAL_API_TOKEN is set`,
      { file },
      { cause },
    )
  }
}

function checkedUrl(text: string): string {
  const url = URL.parse(text)
  if (url !== null && (url.protocol === 'http:' || url.protocol === 'https:')) return text
  throw new Fault('CONFIG_INVALID', `"${text}" is not a URL like http://127.0.0.1:7420`)
}

function nonEmpty(value: string | undefined): string | undefined {
  return value === undefined || value === '' ? undefined : value
}
