import { ApiClient } from '#controller/api-client/index.ts'
import { Fault } from '#shared/fault.ts'
import type { CompatLog } from './compat-log.ts'
import { startTinyFaas } from './tinyfaas/server.ts'

export const COMPAT_NAMES = ['tinyfaas'] as const
export type CompatName = (typeof COMPAT_NAMES)[number]

export interface CompatOptions {
  /** The controller's own API. */
  readonly apiUrl: string
  readonly token: string
  /** Where each adapter listens; absent: where the system it stands for does. 0: any free port. */
  readonly ports?: Partial<Record<CompatName, number>> | undefined
  /** Default 127.0.0.1: these systems know no tokens. */
  readonly host?: string | undefined
  readonly log: CompatLog
}

export interface Compat extends AsyncDisposable {
  /** Where each started adapter listens. */
  readonly ports: Readonly<Partial<Record<CompatName, number>>>
}

/**
 * Starts the named adapters. Disposing stops them and cancels what they do.
 *
 * @throws Fault `CONFIG_INVALID` (a name that is not known), `PORT_TAKEN`
 */
export async function startCompat(
  names: readonly string[],
  options: CompatOptions,
): Promise<Compat> {
  const unknown = names.filter((name) => !COMPAT_NAMES.some((known) => known === name))
  if (unknown.length > 0) {
    throw new Fault(
      'CONFIG_INVALID',
      `SHOAL_COMPAT names ${unknown.join(', ')}; known: ${COMPAT_NAMES.join(', ')}`,
    )
  }
  await using opened = new AsyncDisposableStack()
  const ports: Partial<Record<CompatName, number>> = {}
  if (names.includes('tinyfaas')) {
    const client = new ApiClient({ url: options.apiUrl, token: options.token })
    const { host = '127.0.0.1', log } = options
    const port = options.ports?.tinyfaas ?? 8080
    const server = opened.use(await startTinyFaas({ client, host, port, log }))
    ports.tinyfaas = server.port
    log.info({ adapter: 'tinyfaas', host, port: server.port }, 'compat adapter listens')
  }
  const stack = opened.move()
  return { ports, [Symbol.asyncDispose]: () => stack.disposeAsync() }
}
