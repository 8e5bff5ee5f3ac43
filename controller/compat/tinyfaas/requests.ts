import { RUNTIMES, type Runtime } from '#shared/schemas/names.ts'
import type { FunctionSettings } from '#shared/schemas/command.ts'
import { Fault } from '#shared/fault.ts'
import type { CompatDeployment, CompatSource, InvokePorts } from '../functions-port.ts'
import { decodeGoBase64, decodeGoJson } from './go-json.ts'

const COMMON = { name: 'string', env: 'string', threads: 'int', envs: 'strings' } as const
const UPLOAD = { ...COMMON, zip: 'string' } as const
const UPLOAD_URL = { ...COMMON, url: 'string', subfolder_path: 'string' } as const
const DELETE = { name: 'string' } as const

const THREADS_MAX = 64

/** Functions uploaded this way are told from others by this. */
export function isTinyFaas(settings: FunctionSettings): boolean {
  return settings.errors === 'tinyfaas'
}

/** What may be wrong with a request: `bad-json` is answered 400, a Fault 500. */
export type Parsed<T> = { readonly ok: T } | { readonly bad: 'json' }

export function parseUpload(body: string): Parsed<() => CompatDeployment> {
  const request = decodeGoJson(body, UPLOAD)
  if (request === undefined) return { bad: 'json' }
  return {
    ok: () => {
      const content = decodeGoBase64(request.zip)
      if (content === undefined) throw new Fault('REQUEST_INVALID', 'zip is not base64')
      return deployment(request, { kind: 'zip', content })
    },
  }
}

export function parseUploadUrl(body: string): Parsed<() => CompatDeployment> {
  const request = decodeGoJson(body, UPLOAD_URL)
  if (request === undefined) return { bad: 'json' }
  const { url, subfolder_path: subfolder } = request
  return { ok: () => deployment(request, { kind: 'url', url, subfolder }) }
}

export function parseDelete(body: string): Parsed<string> {
  const request = decodeGoJson(body, DELETE)
  return request === undefined ? { bad: 'json' } : { ok: request.name }
}

interface Common {
  readonly name: string
  readonly env: string
  readonly threads: number
  readonly envs: readonly string[]
}

/**
 * `threads` is the number of handlers; 0 or none means one. A handler may reach the network, as in tinyFaaS, and what it fails
 * with is answered as success.
 *
 * @throws Fault `REQUEST_INVALID`, `RUNTIME_UNKNOWN`
 */
function deployment({ name, env, threads, envs }: Common, source: CompatSource): CompatDeployment {
  if (!/^[a-zA-Z0-9]{1,64}$/.test(name)) {
    throw new Fault('REQUEST_INVALID', `"${name}" is not a name of letters and digits`)
  }
  if (threads < 0 || threads > THREADS_MAX) {
    throw new Fault('REQUEST_INVALID', `threads is ${threads}; 1 to ${THREADS_MAX} are possible`)
  }
  return {
    name,
    runtime: runtimeOf(env),
    source,
    settings: {
      replicas: Math.max(1, threads),
      env: environment(envs),
      network: 'outbound',
      errors: 'tinyfaas',
    },
  }
}

function runtimeOf(env: string): Runtime {
  const runtime = RUNTIMES.find((name) => name === env)
  if (runtime !== undefined) return runtime
  throw new Fault('RUNTIME_UNKNOWN', `env "${env}" is none of ${RUNTIMES.join(', ')}`)
}

/** Entries without `=`, or with a name that no program could read, are skipped, as tinyFaaS does. */
function environment(envs: readonly string[]): Record<string, string> {
  const pairs = envs.flatMap((entry): [string, string][] => {
    const at = entry.indexOf('=')
    const name = entry.slice(0, Math.max(0, at))
    return /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) ? [[name, entry.slice(at + 1)]] : []
  })
  return Object.fromEntries(pairs)
}

/** One line per protocol that is on, without a host: `http://:8000/name`. */
export function uploadAnswer(name: string, ports: InvokePorts): string {
  return Object.entries({ coap: ports.coap, http: ports.http, grpc: ports.grpc })
    .filter(([, port]) => port > 0)
    .map(([protocol, port]) => `${protocol}://:${port}/${name}\n`)
    .join('')
}
