import { writeFile } from 'node:fs/promises'
import { childScope, type ChildScope } from './process.ts'
import { freePort } from './ports.ts'
import { tempFolder, type TempFolder } from './temp.ts'

export interface NatsOptions {
  /** Text of nats.conf for the port it is given (which it must listen on); default: no authentication. */
  readonly config?: (port: number) => string
  /** Default: a free one. */
  readonly port?: number
}

/** A real nats-server of this test's own. Disposing kills it and removes its folder. */
export interface NatsScope extends AsyncDisposable {
  readonly port: number
  /** `nats://127.0.0.1:<port>` */
  readonly url: string
  /** Output of the server that runs now. */
  output(): string
  /** Ends the server at once (SIGKILL) or as told, and waits until it is gone. */
  kill(signal?: NodeJS.Signals): Promise<void>
  /** Starts it again on the same port with the same (or a new) configuration. */
  start(config?: (port: number) => string): Promise<void>
}

/** Starts nats-server on a free port of 127.0.0.1 and resolves when it accepts connections. */
export async function natsScope(options: NatsOptions = {}): Promise<NatsScope> {
  const folder = await tempFolder()
  try {
    return await startScope(folder, options)
  } catch (error) {
    await folder[Symbol.asyncDispose]()
    throw error
  }
}

async function startScope(folder: TempFolder, options: NatsOptions): Promise<NatsScope> {
  const port = options.port ?? (await freePort())
  let config = options.config ?? openConfig
  let server: ChildScope | undefined
  const kill = async (signal?: NodeJS.Signals): Promise<void> => {
    await server?.kill(signal)
    server = undefined
  }
  const start = async (next?: (port: number) => string): Promise<void> => {
    if (server !== undefined) throw new TypeError('nats-server runs already')
    config = next ?? config
    const file = folder.join('nats.conf')
    await writeFile(file, config(port))
    server = await childScope({
      command: 'nats-server',
      args: ['--config', file],
      // Debian installs it where people's PATH does not look.
      env: { PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` },
      ready: (line) => line.includes('Server is ready'),
      readyTimeoutMs: 15_000,
    })
  }
  await start()
  return {
    port,
    url: `nats://127.0.0.1:${port}`,
    output: () => server?.output() ?? '',
    kill,
    start,
    async [Symbol.asyncDispose]() {
      await kill()
      await folder[Symbol.asyncDispose]()
    },
  }
}

function openConfig(port: number): string {
  return `host: 127.0.0.1\nport: ${port}\n`
}
