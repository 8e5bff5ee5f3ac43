import { mkdir, writeFile } from 'node:fs/promises'
import { buffer } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { zstdCompressSync } from 'node:zlib'
import { pack } from 'tar-stream'
import { hostArch } from '#agent/health/index.ts'
import type { Images } from '#shared/schemas/images.ts'
import { childScope, type ChildScope } from './process.ts'

export const AGENT_MAIN = fileURLToPath(new URL('../../agent/main.ts', import.meta.url))
const NODE_RUNNER = fileURLToPath(new URL('../../runtimes/nodejs/main.ts', import.meta.url))

/** A bundle of these files, as the controller would store it. */
export function bundleOf(files: Readonly<Record<string, string>>): Promise<Buffer> {
  const tar = pack()
  for (const [name, content] of Object.entries(files)) tar.entry({ name }, content)
  tar.finalize()
  return buffer(tar).then((bytes) => zstdCompressSync(bytes))
}

export interface AgentOptions {
  /** Its data folder; an `images.json` for the process engine is put there. */
  readonly data: string
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly args?: readonly string[]
}

export interface AgentPorts {
  readonly http: number
  readonly coap: number
  readonly grpc: number
  readonly admin: number
}

export interface AgentScope extends ChildScope {
  readonly node: string
  readonly ports: AgentPorts
  /** URL of the HTTP proxy, without slash at the end. */
  readonly url: string
  /** URL of the admin port. */
  readonly admin: string
}

/** The agent's environment for tests: the process engine, free ports, nothing of this process' own `SHOAL_` settings. */
export async function agentEnv({
  data,
  env = {},
}: AgentOptions): Promise<Record<string, string | undefined>> {
  await mkdir(data, { recursive: true })
  const command = [process.execPath, NODE_RUNNER]
  const images: Images = { arch: hostArch(), process: { nodejs: { command } } }
  await writeFile(`${data}/images.json`, JSON.stringify(images))
  const inherited = Object.keys(process.env).filter((name) => /^SHOAL_|_PORT$/.test(name))
  return {
    ...Object.fromEntries(inherited.map((name) => [name, undefined])),
    SHOAL_DATA: data,
    SHOAL_ENGINE: 'process',
    SHOAL_BIND_HOST: '127.0.0.1',
    SHOAL_HTTP_PORT: '0',
    SHOAL_COAP_PORT: '0',
    SHOAL_GRPC_PORT: '0',
    SHOAL_ADMIN_PORT: '0',
    SHOAL_HEARTBEAT_MS: '500',
    ...env,
  }
}

/** The real agent as a process of its own, ready. Disposing kills it; its handlers are the test's to end (`--remove-handlers`). */
export async function agentProcess(options: AgentOptions): Promise<AgentScope> {
  const env = await agentEnv(options)
  const child = await childScope({ script: AGENT_MAIN, args: options.args ?? [], env })
  const { node, http, coap, grpc, admin }: AgentPorts & { readonly node: string } = JSON.parse(
    child.readyLine,
  )
  return {
    ...child,
    node,
    ports: { http, coap, grpc, admin },
    url: `http://127.0.0.1:${http}`,
    admin: `http://127.0.0.1:${admin}`,
    [Symbol.asyncDispose]: () => child[Symbol.asyncDispose](),
  }
}

/** Runs the agent to its end, for everything that ends by itself. */
export async function agentRun(
  options: AgentOptions,
): Promise<{ readonly code: number | null; readonly output: string }> {
  const env = await agentEnv(options)
  await using child = await childScope({
    script: AGENT_MAIN,
    args: options.args ?? [],
    env,
    ready: () => true,
  })
  const { code } = await child.exited
  // Its last lines come after its end; nobody writes the line that this waits for.
  await child.line(() => false).catch(() => undefined)
  return { code, output: child.output() }
}
