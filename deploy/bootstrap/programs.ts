import { mkdir, rm, symlink } from 'node:fs/promises'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Apt } from './apt.ts'
import { findProgram, runCommand } from '../command.ts'
import type { Step } from './steps.ts'

export interface ProgramsOptions {
  readonly apt: Apt
  readonly data: string
}

/** Programs that were unpacked without root: they come before all others. */
export function programFolder(data: string): string {
  return join(data, 'bin')
}

/** Full path of nats-server. */
export function natsServer(data: string): string | undefined {
  return findProgram('nats-server', [programFolder(data)])
}

/** nats-server from the distribution: installed as root, else unpacked into the data folder. */
export function natsServerStep({ apt, data }: ProgramsOptions): Step {
  return {
    name: 'nats-server',
    present: async (signal) => {
      const program = natsServer(data)
      if (program === undefined) return undefined
      return (await runCommand(program, ['--version'], {}, signal)).replace('nats-server: ', '')
    },
    install: async (signal) => {
      if (apt.installs) {
        await apt.install(['nats-server'], signal)
        await disableService('nats-server', signal)
        return 'installed'
      }
      if (!apt.available)
        throw new Error('this distribution has no apt-get, and I know no other way')
      await unpackProgram({ apt, data }, ['nats-server'], 'usr/sbin/nats-server', signal)
      return `unpacked into ${programFolder(data)} (installing needs root)`
    },
    hint: 'By hand: sudo apt-get install nats-server, or put nats-server on the PATH: https://github.com/nats-io/nats-server/releases',
  }
}

/** Debian starts what it installs; this server is for Shoal to start, on its own port with its own keys. */
async function disableService(name: string, signal: AbortSignal): Promise<void> {
  if (readFileSync('/proc/1/comm', 'utf8').trim() !== 'systemd') return
  await runCommand('systemctl', ['disable', '--now', name], {}, signal).catch(() =>
    signal.throwIfAborted(),
  )
}

/** Go for the binary runner, when a step needs it: on PATH, or unpacked from the distribution's packages. */
export async function ensureGo(
  options: ProgramsOptions,
  signal: AbortSignal,
): Promise<{ readonly program: string; readonly env: Readonly<Record<string, string>> }> {
  const present = findProgram('go')
  if (present !== undefined) return { program: present, env: {} }
  const root = join(options.data, 'unpacked', 'usr/lib/go-1.19')
  const unpacked = findProgram('go', [join(root, 'bin')])
  if (unpacked === undefined) {
    if (!options.apt.available)
      throw new Error('Go is not installed, and this distribution has no apt-get')
    await unpackProgram(options, ['golang-1.19-go', 'golang-1.19-src'], undefined, signal)
  }
  return { program: join(root, 'bin/go'), env: { GOROOT: root } }
}

async function unpackProgram(
  { apt, data }: ProgramsOptions,
  packages: readonly string[],
  program: string | undefined,
  signal: AbortSignal,
): Promise<void> {
  const unpacked = join(data, 'unpacked')
  await mkdir(unpacked, { recursive: true })
  await apt.unpack(packages, unpacked, signal)
  if (program === undefined) return
  const link = join(programFolder(data), program.slice(program.lastIndexOf('/') + 1))
  await mkdir(dirname(link), { recursive: true })
  await rm(link, { force: true })
  await symlink(join(unpacked, program), link)
}

/** The allocator that `deploy/agent-memory.sh` loads where it can. */
export function jemallocStep({ apt }: Pick<ProgramsOptions, 'apt'>): Step {
  const library = 'libjemalloc.so.2'
  return {
    name: 'jemalloc',
    present: async (signal) => {
      const options = { env: { LD_PRELOAD: library } }
      // A loader that cannot load it says so, and goes on without or fails.
      const complaint = await runCommand('/bin/sh', ['-c', ':'], options, signal).catch(String)
      return complaint === '' ? library : undefined
    },
    install: async (signal) => {
      if (!apt.installs) throw new Error('not installed, and installing needs root and apt-get')
      await apt.install(['libjemalloc2'], signal)
      return 'libjemalloc2 installed'
    },
    hint: 'The agent runs without, and keeps more memory after load. By hand: sudo apt-get install libjemalloc2',
  }
}

/** libcoap's client: Debian names it by its TLS library. */
export function coapClient(): string | undefined {
  return ['coap-client', 'coap-client-notls', 'coap-client-openssl', 'coap-client-gnutls'].find(
    (name) => findProgram(name) !== undefined,
  )
}

/** What `npm start` tells people to type, and what the tests call with; `zip` only they need (tinyFaaS's upload script has it). */
export function clientsStep({ apt }: ProgramsOptions, purpose: 'start' | 'test'): Step {
  const others = purpose === 'test' ? ['curl', 'zip'] : ['curl']
  const missing = (): string[] => [
    ...others.filter((name) => findProgram(name) === undefined),
    ...(coapClient() === undefined ? ['libcoap3-bin'] : []),
    // For images of a few megabytes, where the engine is what is tested.
    ...(purpose === 'test' && findProgram('busybox') === undefined ? ['busybox-static'] : []),
  ]
  return {
    name: [...others, 'coap-client'].join(', '),
    present: async () =>
      missing().length === 0 ? [...others, coapClient()].join(', ') : undefined,
    install: async (signal) => {
      if (!apt.installs) throw new Error('not installed, and installing needs root and apt-get')
      const packages = missing()
      await apt.install(packages, signal)
      return `${packages.join(', ')} installed`
    },
    hint: `By hand: sudo apt-get install ${others.join(' ')} libcoap3-bin`,
  }
}
