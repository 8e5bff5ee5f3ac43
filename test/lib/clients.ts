import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { credentials, Client, Metadata, loadPackageDefinition } from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'

// Clients that are not ours: curl, libcoap's coap-client, and gRPC stubs made from the committed proto at run time.

const run = promisify(execFile)
const PROTO = join(import.meta.dirname, '../../proto')

export interface CurlAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** One request by curl; `args` are curl's own. */
export async function curl(url: string, ...args: readonly string[]): Promise<CurlAnswer> {
  const all = ['-sS', '-i', '--max-time', '60', ...args, url]
  const { stdout } = await run('curl', all, { maxBuffer: 64 << 20 })
  // With Expect: 100-continue there is more than one head.
  let rest = stdout
  let head = ''
  while (rest.startsWith('HTTP/')) {
    const end = rest.indexOf('\r\n\r\n')
    head = rest.slice(0, end)
    rest = rest.slice(end + 4)
  }
  const [first = '', ...lines] = head.split('\r\n')
  const headers: Record<string, string> = {}
  for (const line of lines) {
    const colon = line.indexOf(':')
    headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim()
  }
  return { status: Number(first.split(' ')[1]), headers, body: rest }
}

const COAP_CLIENTS = [
  '/usr/bin/coap-client-notls',
  '/usr/bin/coap-client',
  '/usr/bin/coap-client-openssl',
]

/** One request by libcoap's client: what it prints of the payload, and its complaints (`4.04` and the like) in `stderr`. */
export async function coapClient(
  uri: string,
  options: { method?: string; payload?: string; args?: readonly string[] } = {},
): Promise<{ readonly stdout: string; readonly stderr: string }> {
  const program = COAP_CLIENTS.find((path) => existsSync(path))
  if (program === undefined) throw new Error('coap-client is missing: apt-get install libcoap3-bin')
  const { method = 'post', payload, args = [] } = options
  const body = payload === undefined ? [] : ['-e', payload]
  return run(program, ['-B', '30', '-m', method, ...body, ...args, uri], { maxBuffer: 64 << 20 })
}

/** The fields of both services' answers. */
export interface GrpcAnswer {
  /** tinyfaas.proto */
  readonly response: string
  /** shoal.proto */
  readonly payload: Buffer
  readonly status: number
  readonly metadata: Readonly<Record<string, string>>
  readonly content_type: string
}

/** Calls `path` (e.g. `shoal.v1.Functions/Invoke`) as a client generated from the committed `.proto` file would. */
export async function grpcCall(
  address: string,
  path: string,
  request: object,
  metadata: Readonly<Record<string, string>> = {},
): Promise<GrpcAnswer> {
  const file = path.startsWith('shoal.') ? 'shoal.proto' : 'tinyfaas.proto'
  const definition = loadPackageDefinition(
    loadSync(join(PROTO, file), { longs: Number, keepCase: true, defaults: true }),
  )
  const [service = '', method = ''] = path.split('/')
  let node: unknown = definition
  for (const part of service.split('.')) node = Reflect.get(Object(node), part)
  if (typeof node !== 'function') throw new TypeError(`${service} is not in ${file}`)
  const client: unknown = Reflect.construct(node, [address, credentials.createInsecure()])
  if (!(client instanceof Client)) throw new TypeError(`${service} is no service`)
  try {
    const sent = new Metadata()
    for (const [name, value] of Object.entries(metadata)) sent.set(name, value)
    const call: unknown = Reflect.get(client, method)
    if (typeof call !== 'function') throw new TypeError(`${service} has no ${method}`)
    return await new Promise<GrpcAnswer>((resolve, reject) => {
      const answer = (error: Error | null, value?: GrpcAnswer): void => {
        if (error !== null || value === undefined) reject(error ?? new Error('no answer'))
        else resolve(value)
      }
      Reflect.apply(call, client, [request, sent, { deadline: Date.now() + 30_000 }, answer])
    })
  } finally {
    client.close()
  }
}
