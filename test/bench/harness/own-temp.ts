import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openRuns, TEST_LABEL } from '#test/docker.ts'

const SIGNALS = { SIGINT: 130, SIGTERM: 143 } as const
/** What Docker was about to start when its caller was killed is there by then. */
const STARTING_MS = 1_000

/**
 * Gives this process, and all that it starts, a temporary folder of their own. When a signal ends it, all that is known by that
 * folder goes: processes, the containers that have a part of it mounted, the folder; and what open scopes have on the engine. To be
 * called before anything is made.
 */
export function ownTemp(): void {
  const folder = mkdtempSync(join(tmpdir(), 'shoal-b-'))
  process.env['TMPDIR'] = folder
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
  for (const [signal, code] of Object.entries(SIGNALS)) {
    process.once(signal, () => {
      // Behind those who kill what they have started.
      process.on('exit', () => sweep(folder))
      process.exit(code)
    })
  }
}

function sweep(folder: string): void {
  for (const pid of processesOf(folder)) kill(pid)
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, STARTING_MS)
  const ids = docker('ps', '--all', '--quiet', '--no-trunc')
  const ours = ids.filter((id) =>
    docker('inspect', '--format', '{{range .Mounts}}{{println .Source}}{{end}}', id).some(
      (source) => source.startsWith(`${folder}/`),
    ),
  )
  remove('rm', ours)
  for (const run of openRuns) {
    const filter = `--filter=label=${TEST_LABEL}=${run}`
    remove('rm', docker('ps', '--all', '--quiet', filter))
    remove('rmi', docker('images', '--quiet', filter))
  }
  rmSync(folder, { recursive: true, force: true })
}

function remove(command: 'rm' | 'rmi', ids: readonly string[]): void {
  if (ids.length > 0) docker(command, '--force', ...ids)
}

function processesOf(folder: string): readonly number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter(
      (pid) => pid > 0 && pid !== process.pid && environmentOf(pid).includes(`TMPDIR=${folder}`),
    )
}

function environmentOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'utf8')
  } catch {
    return '' // It ended, or belongs to another user.
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It ended.
  }
}

/** Lines of its output; none when it fails, as it does for a container that goes meanwhile. */
function docker(...args: readonly string[]): readonly string[] {
  try {
    const stdio = ['ignore', 'pipe', 'ignore'] as const
    return execFileSync('docker', args, { encoding: 'utf8', stdio: [...stdio] })
      .split('\n')
      .filter(Boolean)
  } catch {
    return []
  }
}
