import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generate } from 'coap-packet'
import { childScope } from '#test/process.ts'
import type { LoadOptions, Round } from './load.ts'

/**
 * Confirmable POSTs to `path` from 8 UDP ports that share `inFlight` outstanding requests. The generator is a process of its own:
 * `load-coap.c` where `cc` is on PATH, for it takes a third of the machine that `load-coap-child.ts` takes, else the latter.
 */
export async function loadCoap(options: LoadOptions & { readonly path: string }): Promise<Round> {
  const { port, path, payload, inFlight, durationMs } = options
  const datagram = generate({
    code: '0.02',
    confirmable: true,
    messageId: 0,
    token: Buffer.alloc(4),
    options: path
      .split('/')
      .filter((segment) => segment !== '')
      .map((segment) => ({ name: 'Uri-Path' as const, value: Buffer.from(segment) })),
    payload,
  })
  compiled ??= compile()
  const [command = '', ...first] = compiled
  await using child = await childScope({
    command,
    args: [...first, String(port), String(inFlight), String(durationMs), datagram.toString('hex')],
    ready: (line) => line.startsWith('{"perSecond"'),
    readyTimeoutMs: durationMs + 30_000,
  })
  const round: Round = JSON.parse(child.readyLine)
  return round
}

let compiled: readonly string[] | undefined

/** The generator's command; what was compiled is gone when this process ends. */
function compile(): readonly string[] {
  const folder = mkdtempSync(join(tmpdir(), 'shoal-load-coap-'))
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  const program = join(folder, 'load-coap')
  const source = join(import.meta.dirname, 'load-coap.c')
  const { status } = spawnSync('cc', ['-O2', '-o', program, source])
  return status === 0
    ? [program]
    : [process.execPath, join(import.meta.dirname, 'load-coap-child.ts')]
}
