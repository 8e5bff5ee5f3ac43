import { Readable } from 'node:stream'
import { runCli } from '#controller/cli/index.ts'
import type { ApiPeer } from './api-peer.ts'

export interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}

export interface RunOptions {
  readonly stdin?: string
  readonly signal?: AbortSignal
  readonly env?: Readonly<Record<string, string>>
  readonly onOut?: (text: string) => void
}

/** Runs one command line against the peer, as a program would. */
export async function shoal(
  peer: ApiPeer,
  args: readonly string[],
  options: RunOptions = {},
): Promise<Ran> {
  const out: Buffer[] = []
  let err = ''
  const code = await runCli(args, {
    out: {
      tty: false,
      columns: 100,
      write: (content) => {
        out.push(Buffer.from(content))
        options.onOut?.(String(content))
      },
      note: (text) => {
        err += text
      },
    },
    stdin: Readable.from([options.stdin ?? '']),
    env: { SHOAL_API_URL: peer.url, SHOAL_API_TOKEN: peer.token, ...options.env },
    signal: options.signal ?? new AbortController().signal,
    nowMs: () => Date.now(),
  })
  return { code, out: Buffer.concat(out).toString(), err }
}
