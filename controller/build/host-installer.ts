import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir } from 'node:fs/promises'
import path from 'node:path'
import { finished } from 'node:stream/promises'
import { Fault } from '#shared/fault.ts'
import type { Arch, Runtime } from '#shared/schemas/names.ts'
import { buildEnv } from './build-env.ts'
import { packTar } from './bundle.ts'
import type { ProxySettings } from './download.ts'
import type { InstallStep } from './install.ts'
import type { InstallJob, Installer } from './installer.ts'
import { TreeWriter } from './tree-writer.ts'
import { unpackTar } from './unpack.ts'

export interface HostInstallerOptions {
  readonly arch: Arch
  /** For finding npm and python3. */
  readonly searchPath: string
  readonly caFile?: string | undefined
  readonly proxy?: ProxySettings | undefined
  readonly env?: Readonly<Record<string, string>> | undefined
}

const HINTS: Readonly<Record<string, string>> = {
  npm: 'npm is not installed on this host (Debian: apt-get install npm), and there is no Docker to build in',
  python3:
    'python3 is not installed on this host (Debian: apt-get install python3 python3-pip), and there is no Docker to build in',
}

/**
 * Installs as processes of this host, for a machine without Docker. Packages' own scripts do not run (nothing would hold
 * them), and only ready-made wheels are taken.
 */
export class HostInstaller implements Installer {
  readonly arch: Arch
  readonly scripts = false
  readonly #options: HostInstallerOptions

  constructor(options: HostInstallerOptions) {
    this.#options = options
    this.arch = options.arch
  }

  builderId(runtime: Runtime): string {
    return `host:${runtime}`
  }

  async sweep(): Promise<void> {
    // Processes of an earlier controller ended with their pipes; their folders are removed with all temp folders.
  }

  async install(job: InstallJob, signal: AbortSignal): Promise<void> {
    await mkdir(job.into)
    const copy = packTar(job.folder, job.tree, {}, signal)
    await unpackTar(copy, [], new TreeWriter(job.into), {}, signal)
    const home = `${job.into}-home`
    await mkdir(home)
    for (const step of job.plan.steps) await this.#run(step, job, home, signal)
  }

  async #run(step: InstallStep, job: InstallJob, home: string, signal: AbortSignal): Promise<void> {
    const [tool = '', ...args] = step.argv
    signal.throwIfAborted()
    const child = spawn(tool, args, {
      cwd: job.into,
      env: { PATH: this.#options.searchPath, ...buildEnv({ ...this.#options, home }) },
      stdio: ['ignore', 'pipe', 'pipe'],
      // A group of its own, so that stopping it also stops what it started.
      detached: true,
    })
    const stop = () => {
      if (child.pid === undefined) return
      try {
        process.kill(-child.pid, 'SIGKILL')
      } catch {
        // The group has ended.
      }
    }
    signal.addEventListener('abort', stop, { once: true })
    try {
      const sinks = [child.stdout.pipe(job.output.sink()), child.stderr.pipe(job.output.sink())]
      const [code]: (number | null)[] = await once(child, 'exit')
      // A child that was left running would keep the pipes open.
      stop()
      for (const sink of sinks) await finished(sink)
      signal.throwIfAborted()
      if (code === 0 || step.optional === true) return
      throw failure(job, code ?? -1)
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error
      const message = HINTS[tool] ?? `${path.basename(tool)} is not installed on this host`
      throw new Fault('BUILD_FAILED', message, { lines: [] }, { cause: error })
    } finally {
      signal.removeEventListener('abort', stop)
    }
  }
}

function failure(job: InstallJob, exitCode: number): Fault {
  const noPip = job.output.last.some((line) => line.includes('No module named pip'))
  const message = noPip
    ? 'pip is not installed on this host (Debian: apt-get install python3-pip), and there is no Docker to build in'
    : `installing dependencies failed: ${job.plan.tool} ended with exit code ${exitCode}`
  return new Fault('BUILD_FAILED', message, { lines: [...job.output.last], exitCode })
}
