import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import Docker from 'dockerode'
import { childScope, type ChildExit, type ChildScope } from './process.ts'
import { freePort } from './ports.ts'
import { tempFolder } from './temp.ts'

const ROOT = join(import.meta.dirname, '../..')
const READY_TIMEOUT_MS = 180_000

export interface ProductPorts {
  readonly http: number
  readonly coap: number
  readonly grpc: number
  readonly admin: number
  readonly api: number
  readonly nats: number
  readonly tinyfaas: number
}

export interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** The whole product as `npm start` runs it, on a data folder and ports of its own. */
export interface ProductScope extends AsyncDisposable {
  readonly data: string
  readonly ports: ProductPorts
  readonly env: Readonly<Record<string, string>>
  /** Everything printed since the last start. */
  output(): string
  /** Starts it (again, on the same data folder) and resolves to the milliseconds until it said "ready". */
  start(): Promise<number>
  /** SIGTERM; resolves when it has ended, with the milliseconds that took. */
  stop(): Promise<ChildExit & { readonly tookMs: number }>
  /** Resolves to the process id of a part: `nats`, `controller` or `agent`. */
  pid(part: string): Promise<number>
  /** The CLI, as a user types it; never throws for an exit code. */
  shoal(...args: readonly string[]): Promise<Ran>
  /** Any other program with this product's environment. */
  run(command: string, args: readonly string[], options?: RunOptions): Promise<Ran>
  /** URL of a path on the node's HTTP port. */
  url(path: string): string
  /** Containers of this installation, running or not. */
  containers(): Promise<readonly Docker.ContainerInfo[]>
}

export interface RunOptions {
  readonly cwd?: string
  readonly timeoutMs?: number
  readonly stdin?: string
}

/**
 * A product that has not been started yet. Disposing stops it and fails when a container of it is left.
 *
 * @param tree - the checkout that is run; default: this one
 */
export async function productScope(
  extra: Readonly<Record<string, string>> = {},
  tree: string = ROOT,
): Promise<ProductScope> {
  const stack = new AsyncDisposableStack()
  const { path: data } = stack.use(await tempFolder())
  const ports = await freePorts()
  const env: Record<string, string> = { ...productEnv(data, ports), ...extra }
  const docker = new Docker({ socketPath: extra['SHOAL_DOCKER_SOCKET'] ?? '/var/run/docker.sock' })
  let child: ChildScope | undefined

  const containers = async () => {
    const id = await readFile(join(data, 'agent/installation-id'), 'utf8').catch(() => undefined)
    if (id === undefined) return []
    const filters = { label: [`shoal=${id.trim()}`] }
    return docker
      .listContainers({ all: true, filters })
      .catch((error: Error & { code?: string }) => {
        // An engine of this product's own has ended with it, and with an engine goes all that ran on it.
        if (error.code === 'ENOENT' && extra['SHOAL_DOCKER_SOCKET'] !== undefined) return []
        throw error
      })
  }
  const run = (command: string, args: readonly string[], options: RunOptions = {}) =>
    runProgram(command, args, { cwd: tree, ...options, env })
  return {
    data,
    ports,
    env,
    output: () => child?.output() ?? '',
    async start() {
      const startedAt = performance.now()
      child = await childScope({
        script: join(tree, 'deploy/start.mjs'),
        args: ['start'],
        env,
        cwd: tree,
        ready: (line) => line.startsWith('ready in '),
        readyTimeoutMs: READY_TIMEOUT_MS,
      })
      return performance.now() - startedAt
    },
    async stop() {
      const startedAt = performance.now()
      const exit = await child?.kill('SIGTERM')
      child = undefined
      return { ...(exit ?? { code: 0, signal: null }), tookMs: performance.now() - startedAt }
    },
    async pid(part) {
      const state: { children: Record<string, { pid: number }> } = JSON.parse(
        await readFile(join(data, 'run.json'), 'utf8'),
      )
      const pid = state.children[part]?.pid
      if (pid === undefined) throw new Error(`${part} does not run`)
      return pid
    },
    shoal: (...args) => run(process.execPath, [join(tree, 'controller/cli/shoal.mjs'), ...args]),
    run,
    url: (path) => `http://127.0.0.1:${ports.http}${path}`,
    containers,
    async [Symbol.asyncDispose]() {
      await child?.kill('SIGTERM')
      const left = env['SHOAL_ENGINE'] === 'process' ? [] : await containers()
      for (const { Id } of left) await docker.getContainer(Id).remove({ force: true })
      await stack.disposeAsync()
      if (left.length > 0) throw new Error(`${left.length} containers were left by npm start`)
    },
  }
}

async function freePorts(): Promise<ProductPorts> {
  return {
    http: await freePort(),
    coap: await freePort('udp'),
    grpc: await freePort(),
    admin: await freePort(),
    api: await freePort(),
    nats: await freePort(),
    tinyfaas: await freePort(),
  }
}

function productEnv(data: string, ports: ProductPorts): Record<string, string> {
  return {
    SHOAL_DATA: data,
    SHOAL_HTTP_PORT: String(ports.http),
    SHOAL_COAP_PORT: String(ports.coap),
    SHOAL_GRPC_PORT: String(ports.grpc),
    SHOAL_ADMIN_PORT: String(ports.admin),
    SHOAL_API_PORT: String(ports.api),
    SHOAL_NATS_PORT: String(ports.nats),
    SHOAL_COMPAT_TINYFAAS_PORT: String(ports.tinyfaas),
  }
}

function runProgram(
  command: string,
  args: readonly string[],
  { cwd = ROOT, timeoutMs = 120_000, stdin, env }: RunOptions & { env: Record<string, string> },
): Promise<Ran> {
  return new Promise((resolve) => {
    const options = {
      cwd,
      timeout: timeoutMs,
      env: { ...process.env, ...env },
      maxBuffer: 64 << 20,
    }
    const child = execFile(command, [...args], options, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1
      resolve({ code, stdout, stderr })
    })
    child.stdin?.on('error', () => {}) // A program that does not read its input is no failure.
    child.stdin?.end(stdin ?? '')
  })
}
