import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import path from 'node:path'
import { Value } from 'typebox/value'
import { Fault } from '#shared/fault.ts'
import { ADDRESS_FILE, ControllerAddress } from '#shared/schemas/address.ts'

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

/** An address, and what said so: for whoever has to change it. */
export interface Located {
  readonly url: string
  readonly from: string
}

/**
 * Where the controller is: `--url`, then the settings, then what the controller has left in the data folder, then its default.
 *
 * @throws Fault `CONFIG_INVALID`
 */
export async function locateApi(options: ConnectionOptions, env: Env): Promise<Located> {
  if (options.url !== undefined) return { url: checkedUrl(options.url), from: '--url' }
  const set = nonEmpty(env['SHOAL_API_URL'])
  if (set !== undefined) return { url: checkedUrl(set), from: 'SHOAL_API_URL' }
  const [host, port] = [nonEmpty(env['SHOAL_API_HOST']), nonEmpty(env['SHOAL_API_PORT'])]
  const noted = await readAddress(options, env)
  if (host === undefined && port === undefined && noted !== undefined) {
    return { url: noted.api, from: addressFile(options, env) }
  }
  const from = [host && 'SHOAL_API_HOST', port && 'SHOAL_API_PORT'].filter(Boolean).join(', ')
  const shown = reachable(host ?? '127.0.0.1')
  const url = checkedUrl(`http://${shown}:${port ?? '7420'}`)
  return {
    url,
    from: from === '' ? `the default; ${addressFile(options, env)} is not there` : from,
  }
}

/** What the controller of this data folder has left there at its last start; undefined when there is none. */
export async function readAddress(
  options: ConnectionOptions,
  env: Env,
): Promise<ControllerAddress | undefined> {
  try {
    const value: unknown = JSON.parse(await readFile(addressFile(options, env), 'utf8'))
    return Value.Check(ControllerAddress, value) ? value : undefined
  } catch {
    return undefined
  }
}

function addressFile(options: ConnectionOptions, env: Env): string {
  return path.join(dataFolder(options, env), 'controller', ADDRESS_FILE)
}

/** Where it listens on all addresses, it is reached by loopback. */
function reachable(host: string): string {
  const reached = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host
  return reached.includes(':') ? `[${reached}]` : reached
}

export function tokenFile(options: ConnectionOptions, env: Env): string {
  return path.join(dataFolder(options, env), 'controller', 'api-token')
}

/**
 * The address as `locateApi` finds it; the token by option, `SHOAL_API_TOKEN`, or from the data folder.
 *
 * @throws Fault `CONFIG_INVALID`, `UNAUTHENTICATED` (no token anywhere)
 */
export async function findConnection(options: ConnectionOptions, env: Env): Promise<Connection> {
  const { url } = await locateApi(options, env)
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
