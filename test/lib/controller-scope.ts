import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ApiClient } from '#controller/api-client/index.ts'
import { ensureNatsAuthority } from '#controller/signing/index.ts'
import { natsScope, type NatsScope } from './nats.ts'
import { freePort } from './ports.ts'
import { childScope, type ChildExit, type ChildScope } from './process.ts'
import { tempFolder } from './temp.ts'

const SCRIPT = join(import.meta.dirname, '../../controller/main.ts')

/** Test nodes beat four times as often: a machine that stands still for a second makes none of them offline. */
const HEARTBEAT_MS = 1_000

export interface ControllerOptions {
  /** Default: started with this controller's own keys. `false`: there is none. */
  readonly nats?: boolean
  readonly env?: Readonly<Record<string, string>>
}

/** What `fetch` takes; the bearer token is added. */
export interface CallInit {
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Uint8Array<ArrayBuffer> | ReadableStream
  readonly signal?: AbortSignal
}

/** A real controller as a process of its own, with a real nats-server, on a data folder of its own. */
export interface ControllerScope extends AsyncDisposable {
  readonly folder: string
  readonly url: string
  readonly natsPort: number
  readonly nats: NatsScope | undefined
  readonly token: string
  readonly api: ApiClient
  /** What it printed since its last start. */
  output(): string
  /** Waits for a line of its log with this message. */
  said(message: string, timeoutMs?: number): Promise<void>
  /** Starts nats-server when the scope was made without. */
  startNats(): Promise<NatsScope>
  /** Default SIGKILL. */
  kill(signal?: NodeJS.Signals): Promise<ChildExit>
  /** Again, on the same folder and port. */
  start(): Promise<void>
  fetch(path: string, init?: CallInit): Promise<Response>
}

export async function controllerScope(options: ControllerOptions = {}): Promise<ControllerScope> {
  await using stack = new AsyncDisposableStack()
  const folder = stack.use(await tempFolder())
  const natsPort = await freePort()
  const apiPort = await freePort()
  let nats: NatsScope | undefined
  const openNats = async (owner: AsyncDisposableStack) => {
    const keys = folder.join('controller', 'nats')
    const authority = await ensureNatsAuthority(keys, { port: natsPort })
    nats = owner.use(await natsScope({ port: natsPort, config: () => authority.serverConfig }))
    return nats
  }
  if (options.nats !== false) await openNats(stack)
  let child: ChildScope | undefined
  const start = async () => {
    child = await childScope({
      script: SCRIPT,
      env: {
        SHOAL_DATA: folder.path,
        SHOAL_CONTROLLER_DATA: undefined,
        SHOAL_API_PORT: String(apiPort),
        SHOAL_NATS_URL: `nats://127.0.0.1:${natsPort}`,
        SHOAL_HEARTBEAT_MS: String(HEARTBEAT_MS),
        SHOAL_LOG_LEVEL: 'debug',
        ...options.env,
      },
    })
  }
  stack.defer(async () => {
    await child?.kill()
  })
  await start()
  const token = (await readFile(folder.join('controller', 'api-token'), 'utf8')).trim()
  const url = `http://127.0.0.1:${apiPort}`
  const owned = stack.move()
  return {
    folder: folder.path,
    url,
    natsPort,
    get nats() {
      return nats
    },
    token,
    api: new ApiClient({ url, token }),
    output: () => child?.output() ?? '',
    async said(message, timeoutMs) {
      await child?.line((line) => line.includes(`"msg":"${message}"`), timeoutMs)
    },
    startNats: () => openNats(owned),
    async kill(signal) {
      if (child === undefined) throw new TypeError('the controller does not run')
      return child.kill(signal)
    },
    start,
    fetch: (path, init = {}) =>
      fetch(`${url}${path}`, {
        ...init,
        // Bodies that are streams need it; others do not mind.
        duplex: 'half',
        headers: { authorization: `Bearer ${token}`, ...init.headers },
      }),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}
