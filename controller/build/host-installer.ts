import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { finished } from 'node:stream/promises'
import { Fault } from '#shared/fault.ts'
import type { Arch, Runtime } from '#shared/schemas/names.ts'
import { buildEnv } from './build-env.ts'
import { packTar } from './bundle.ts'
import type { ProxySettings } from './download.ts'
import { checkPackageJson, checkPackageLock, plainRequirements } from './host-rules.ts'
import { NPM_PACKAGES, PYTHON_PACKAGES, type InstallPlan, type InstallStep } from './install.ts'
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

type Tool = InstallPlan['tool']

const PACKAGES: Readonly<Record<Tool, string>> = { npm: NPM_PACKAGES, pip: PYTHON_PACKAGES }
/** All that a tool gets to see of the upload: each file, and how it is checked. Gives what the tool is to read. */
const MANIFESTS: Readonly<Record<Tool, Readonly<Record<string, Check>>>> = {
  npm: {
    'package.json': asItIs(checkPackageJson),
    'package-lock.json': asItIs(checkPackageLock),
    'npm-shrinkwrap.json': asItIs(checkPackageLock),
  },
  pip: { 'requirements.txt': plainRequirements },
}

/** The largest lock files of the wild have a few MiB. */
const MANIFEST_BYTES_MAX = 16 * 1024 * 1024

type Check = (name: string, text: string) => string

function asItIs(check: (name: string, text: string) => void): Check {
  return (name, text) => {
    check(name, text)
    return text
  }
}

/**
 * Installs as processes of this host, for a machine without Docker. Nothing would hold what they run, so no code of the upload
 * or of a package does: scripts of packages are off, only ready-made wheels are taken, and the tools work in a folder of their
 * own with the checked manifests and no other file (no `.npmrc`, no package beside it, no module that hides one of Python's).
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
    const { tool, steps } = job.plan
    const home = `${job.into}-home`
    const work = `${job.into}-work`
    for (const folder of [home, work, job.into]) await mkdir(folder)
    for (const [name, check] of Object.entries(MANIFESTS[tool])) {
      if (!job.tree.some((entry) => entry.path === name)) continue
      const file = path.join(job.folder, name)
      if ((await stat(file)).size > MANIFEST_BYTES_MAX) {
        throw new Fault('BUNDLE_INVALID', `${name} is larger than ${MANIFEST_BYTES_MAX} bytes`)
      }
      await writeFile(path.join(work, name), check(name, await readFile(file, 'utf8')))
    }
    for (const step of steps) await this.#run(step, job, { home, work }, signal)
    const copy = packTar(job.folder, job.tree, {}, signal)
    await unpackTar(copy, [], new TreeWriter(job.into), {}, signal)
    const packages = path.join(work, PACKAGES[tool])
    if (await exists(packages)) await rename(packages, path.join(job.into, PACKAGES[tool]))
  }

  async #run(
    step: InstallStep,
    job: InstallJob,
    { home, work }: { readonly home: string; readonly work: string },
    signal: AbortSignal,
  ): Promise<void> {
    const [tool = '', ...args] = step.argv
    signal.throwIfAborted()
    const child = spawn(tool, args, {
      cwd: work,
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

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  )
}

function failure(job: InstallJob, exitCode: number): Fault {
  const noPip = job.output.last.some((line) => line.includes('No module named pip'))
  const message = noPip
    ? 'pip is not installed on this host (Debian: apt-get install python3-pip), and there is no Docker to build in'
    : `installing dependencies failed: ${job.plan.tool} ended with exit code ${exitCode}`
  return new Fault('BUILD_FAILED', message, { lines: [...job.output.last], exitCode })
}
