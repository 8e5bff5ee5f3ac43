import type { Arch, Runtime } from '#shared/schemas/names.ts'
import type { Manifest } from './manifest.ts'

/** How dependencies get into a function's folder. */
export interface InstallPlan {
  readonly tool: 'npm' | 'pip'
  /** One line for the person who waits. */
  readonly why: string
  readonly steps: readonly InstallStep[]
}

export interface InstallStep {
  readonly argv: readonly string[]
  /** A failure of this step is shown and changes nothing. */
  readonly optional?: boolean
}

export interface InstallInput {
  readonly runtime: Runtime
  readonly files: ReadonlySet<string>
  readonly manifest: Manifest | undefined
  /** Whether requirements.txt names anything. */
  readonly requirements: boolean
  readonly arch: Arch
  /** Architecture of what does the installing. */
  readonly hostArch: Arch
  /** In a container the packages' own install scripts may run; on the host they may not. */
  readonly scripts: boolean
}

/** Folder for Python packages, on the runner's search path. */
export const PYTHON_PACKAGES = '.deps'
export const NPM_PACKAGES = 'node_modules'
const LOCKS = ['package-lock.json', 'npm-shrinkwrap.json']

/** What has to be installed, if anything. Pure. */
export function planInstall(input: InstallInput): InstallPlan | undefined {
  const { runtime, manifest, requirements } = input
  if (runtime === 'nodejs' && manifest?.dependencies === true) return planNpm(input)
  if (runtime === 'python3' && requirements) return planPip(input)
  return undefined
}

function planNpm({ files, arch, hostArch, scripts }: InstallInput): InstallPlan {
  const lock = LOCKS.find((name) => files.has(name))
  const foreign = arch !== hostArch
  const argv = ['npm', lock === undefined ? 'install' : 'ci', '--omit=dev']
  argv.push('--no-audit', '--no-fund', '--no-update-notifier', '--loglevel=notice')
  if (!scripts || foreign) argv.push('--ignore-scripts')
  // A package of the registry may depend on a repository, and git takes its settings from many places.
  if (!scripts) argv.push('--git=/bin/false')
  if (foreign) argv.push('--os=linux', '--libc=glibc', `--cpu=${arch === 'amd64' ? 'x64' : arch}`)
  const other = files.has('yarn.lock') || files.has('pnpm-lock.yaml')
  const how =
    lock === undefined
      ? `npm install (no package-lock.json${other ? '; other lock files are not read' : ''}: versions are chosen now)`
      : `npm ci (${lock})`
  const scriptsNote = foreign ? `; for ${arch} on ${hostArch}: install scripts do not run` : ''
  return { tool: 'npm', why: `installing dependencies: ${how}${scriptsNote}`, steps: [{ argv }] }
}

const WHEEL_PLATFORMS = {
  amd64: ['manylinux_2_28_x86_64', 'manylinux_2_17_x86_64', 'manylinux2014_x86_64'],
  arm64: ['manylinux_2_28_aarch64', 'manylinux_2_17_aarch64', 'manylinux2014_aarch64'],
} as const satisfies Record<Arch, readonly string[]>

function planPip({ arch, hostArch, scripts }: InstallInput): InstallPlan {
  const foreign = arch !== hostArch
  // Isolated: else pip would take the function's own modules for those of Python.
  const argv = ['python3', '-I', '-m', 'pip', 'install', '--target', PYTHON_PACKAGES]
  argv.push('-r', 'requirements.txt', '--no-compile', '--no-cache-dir', '--progress-bar', 'off')
  argv.push('--disable-pip-version-check', '--no-input')
  if (!scripts || foreign) argv.push('--only-binary', ':all:')
  if (foreign) {
    for (const platform of WHEEL_PLATFORMS[arch]) argv.push('--platform', platform)
  }
  const note = foreign ? `; for ${arch} on ${hostArch}: ready-made wheels only` : ''
  // The bundle is mounted read-only and its files carry no time: byte code has to be in it, and by content, not by time.
  const compile = ['python3', '-I', '-m', 'compileall', '-q']
  compile.push('--invalidation-mode', 'unchecked-hash', PYTHON_PACKAGES)
  return {
    tool: 'pip',
    why: `installing dependencies: pip install -r requirements.txt${note}`,
    steps: [{ argv }, { argv: compile, optional: true }],
  }
}

/** The steps as one script for `sh -c`. */
export function shellScript(steps: readonly InstallStep[]): string {
  const lines = steps.map(
    (step) => step.argv.map(quote).join(' ') + (step.optional === true ? ' || true' : ''),
  )
  return ['set -e', ...lines].join('\n')
}

function quote(word: string): string {
  return `'${word.replaceAll("'", String.raw`'\''`)}'`
}
