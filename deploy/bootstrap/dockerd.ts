import { spawn, type ChildProcess } from 'node:child_process'
import { mkdirSync, openSync, closeSync, readFileSync, rmSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import Docker from 'dockerode'
import { findProgram, runCommand } from '../command.ts'

const START_TIMEOUT_MS = 60_000
const POLL_MS = 100
const ANSWER_TIMEOUT_MS = 5_000
const LOG_LINES_SHOWN = 12
/** Where dockerd listens when nobody says otherwise; only that one is known to systemd. */
const STANDARD_SOCKETS: ReadonlySet<string> = new Set(['/var/run/docker.sock', '/run/docker.sock'])
const STANDARD_PID_FILE = '/var/run/docker.pid'

/** What answers at the engine's socket. */
export type EngineState =
  | { readonly state: 'running'; readonly version: string }
  | { readonly state: 'denied' }
  | { readonly state: 'absent'; readonly reason: string }

/** Asks the engine at `socketPath` who it is. */
export async function engineState(socketPath: string, signal: AbortSignal): Promise<EngineState> {
  try {
    const { Version: version, ApiVersion: api } = await new Docker({
      socketPath,
      timeout: ANSWER_TIMEOUT_MS,
    }).version()
    return { state: 'running', version: `Docker Engine ${version}, API ${api}` }
  } catch (error) {
    signal.throwIfAborted()
    const code = error instanceof Error && 'code' in error ? error.code : ''
    if (code === 'EACCES' || code === 'EPERM') return { state: 'denied' }
    return { state: 'absent', reason: error instanceof Error ? error.message : String(error) }
  }
}

/** A dockerd that we started on a machine without systemd; whoever holds it stops it. */
export interface OwnDockerd {
  /** Starts it again when it has died; resolves to true when that was so. */
  ensureRunning(signal: AbortSignal): Promise<boolean>
  /** Stops it, unless containers run on it. Resolves to false when it was left running. */
  stop(): Promise<boolean>
}

export interface DockerdOptions {
  readonly socketPath: string
  /** The data folder: for the log, and for the state of an engine on a socket of its own. */
  readonly data: string
}

/**
 * Starts dockerd: by systemd where that rules, else as a process of ours that lives on its own.
 * @throws Error with the end of dockerd's log
 */
export async function startDockerd(
  options: DockerdOptions,
  signal: AbortSignal,
): Promise<OwnDockerd | undefined> {
  const standard = STANDARD_SOCKETS.has(options.socketPath)
  if (standard && readFileSync('/proc/1/comm', 'utf8').trim() === 'systemd') {
    await runCommand(
      'systemctl',
      ['start', 'docker.service'],
      { timeoutMs: START_TIMEOUT_MS },
      signal,
    )
    await waitForEngine(options, undefined, signal)
    return undefined
  }
  await ensureCgroups(signal)
  let child = spawnDockerd(options, standard)
  try {
    await waitForEngine(options, child, signal)
  } catch (error) {
    await stopDockerd(options.socketPath, child)
    throw error
  }
  // Another one was faster: that is not ours to stop.
  if (hasEnded(child)) return undefined
  return {
    async ensureRunning(again) {
      if (!hasEnded(child)) return false
      // Another one serves there by now: ours would end at its pid file, again and again.
      if ((await engineState(options.socketPath, again)).state === 'running') return false
      child = spawnDockerd(options, standard)
      await waitForEngine(options, child, again)
      return true
    },
    stop: () => stopDockerd(options.socketPath, child),
  }
}

function spawnDockerd(options: DockerdOptions, standard: boolean): ChildProcess {
  const log = join(options.data, 'log', 'dockerd.log')
  mkdirSync(dirname(log), { recursive: true })
  mkdirSync(dirname(options.socketPath), { recursive: true })
  const own = join(options.data, 'docker')
  forgetDeadContainerd(standard ? '/var/run/docker' : join(own, 'exec'))
  const file = openSync(log, 'a')
  const program = standard ? (findProgram('dockerd') ?? 'dockerd') : 'unshare'
  const args = standard ? [] : separateEngine(own, options.socketPath)
  // Where containerd, when dockerd takes it for hung and kills it, writes its stacks.
  const env = { ...process.env, TMPDIR: dirname(log) }
  // Detached: a Ctrl+C at the terminal is for us; dockerd ends when we say so, after the handlers are gone.
  const child = spawn(program, args, { detached: true, env, stdio: ['ignore', file, file] })
  closeSync(file)
  child.unref()
  return child
}

/**
 * dockerd waits in vain for a containerd whose process id it finds in its folder and takes for alive, which it does when that
 * one is a zombie: killed together with the last dockerd, on a machine whose first process buries nobody.
 */
function forgetDeadContainerd(execRoot: string): void {
  const file = join(execRoot, 'containerd/containerd.pid')
  try {
    const pid = readFileSync(file, 'utf8').trim()
    if (/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))) rmSync(file)
  } catch {
    // No such file or no such process: nothing to forget.
  }
}

/**
 * An engine beside the machine's own: own state, and a network namespace of its own. In the machine's, two engines would take
 * each other's bridge and packet filter away; the price is that its containers reach no network.
 */
function separateEngine(folder: string, socketPath: string): readonly string[] {
  return [
    '--net',
    findProgram('dockerd') ?? 'dockerd',
    `--host=unix://${socketPath}`,
    `--data-root=${join(folder, 'data')}`,
    `--exec-root=${join(folder, 'exec')}`,
    `--pidfile=${join(folder, 'dockerd.pid')}`,
    '--iptables=false',
  ]
}

async function waitForEngine(
  options: DockerdOptions,
  child: ChildProcess | undefined,
  signal: AbortSignal,
): Promise<void> {
  const failed = Promise.withResolvers<string>()
  let reason: string | undefined
  void failed.promise.then((text) => (reason = text))
  child?.once('error', (error) => failed.resolve(error.message))
  child?.once('exit', (code, killed) =>
    failed.resolve(`it ended with ${killed ?? `exit code ${code}`}`),
  )
  const deadlineMs = performance.now() + START_TIMEOUT_MS
  for (;;) {
    const { state } = await engineState(options.socketPath, signal)
    if (state === 'running') return
    const isOver = performance.now() > deadlineMs
    if (isOver) reason ??= `it does not answer at ${options.socketPath}`
    // Ours ends at once where another one, of the package or of the person here, is about to listen.
    const isComing = !isOver && STANDARD_SOCKETS.has(options.socketPath) && isAnotherAlive()
    if (reason !== undefined && !isComing) break
    await sleep(POLL_MS, undefined, { signal })
  }
  throw new Error(`dockerd did not start: ${reason}${await logEnd(options.data)}`)
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null
}

/** A dockerd of the standard socket lives, whoever started it. */
function isAnotherAlive(): boolean {
  try {
    const pid = readFileSync(STANDARD_PID_FILE, 'utf8').trim()
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim() === 'dockerd'
  } catch {
    return false
  }
}

async function logEnd(data: string): Promise<string> {
  const file = join(data, 'log', 'dockerd.log')
  try {
    const lines = (await readFile(file, 'utf8')).trimEnd().split('\n')
    return `; the end of ${file}:\n${lines.slice(-LOG_LINES_SHOWN).join('\n')}`
  } catch {
    return ''
  }
}

/** Where nothing has mounted the cgroup file system (a bare virtual machine), dockerd cannot work: mount it. */
async function ensureCgroups(signal: AbortSignal): Promise<void> {
  const mounts = await readFile('/proc/mounts', 'utf8')
  if (/ \/sys\/fs\/cgroup/.test(mounts)) return
  const known = await readdir('/sys/fs/cgroup').catch(() => undefined)
  if (known === undefined) return
  await runCommand('mount', ['-t', 'cgroup2', 'none', '/sys/fs/cgroup'], {}, signal)
}

async function stopDockerd(socketPath: string, child: ChildProcess): Promise<boolean> {
  if (hasEnded(child)) return true
  const docker = new Docker({ socketPath })
  const running = await docker.listContainers().catch(() => [])
  if (running.length > 0) return false
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.ref()
  child.kill('SIGTERM')
  await Promise.race([ended, sleep(8_000, undefined, { ref: false })])
  return true
}
