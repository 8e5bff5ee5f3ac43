import { readFile } from 'node:fs/promises'
import { arch as nodeArch, availableParallelism, release, totalmem } from 'node:os'
import { parseEnv } from 'node:util'
import type { Arch, EngineKind, Labels, Runtime } from '#shared/schemas/names.ts'
import type { Inventory } from '#shared/schemas/health.ts'
import { timeLimit } from '#shared/time-limit.ts'
import type { HealthLog } from './log.ts'

const ENGINE_WITHIN_MS = 3_000
/** Where every distribution of today tells its name: os-release(5). */
const OS_RELEASE = '/etc/os-release'

export interface InventoryOptions {
  readonly agentVersion: string
  readonly labels: Labels
  readonly ports: Inventory['ports']
  readonly engine: {
    readonly kind: EngineKind
    version(signal: AbortSignal): Promise<string>
    runtimes(signal: AbortSignal): Promise<readonly Runtime[]>
  }
  readonly log: HealthLog
}

/** @throws RangeError on a processor that Shoal has no runtimes for */
export function hostArch(): Arch {
  const arch = nodeArch()
  if (arch === 'x64') return 'amd64'
  if (arch === 'arm64') return 'arm64'
  throw new RangeError(`processor ${arch} is not supported: amd64 and arm64 are`)
}

/** What seldom changes on this node. The host is looked at once; the engine, which may be upgraded, every time. */
export class InventoryReader {
  readonly #options: InventoryOptions
  #os: Promise<string> | undefined
  #engineVersion = 'unknown'
  #runtimes: readonly Runtime[] = []

  constructor(options: InventoryOptions) {
    this.#options = options
  }

  /** An engine that does not answer is described as it last was: a hello must not wait for it. */
  async read(): Promise<Inventory> {
    const { agentVersion, labels, ports, engine } = this.#options
    this.#os ??= osName()
    const [os] = await Promise.all([this.#os, this.#askEngine()])
    return {
      agentVersion,
      arch: hostArch(),
      cores: availableParallelism(),
      memoryMiB: Math.round(totalmem() / (1024 * 1024)),
      os,
      kernel: release(),
      engine: engine.kind,
      engineVersion: this.#engineVersion,
      runtimes: [...this.#runtimes],
      labels,
      ports,
    }
  }

  async #askEngine(): Promise<void> {
    const { engine, log } = this.#options
    const signal = timeLimit(ENGINE_WITHIN_MS)
    try {
      this.#engineVersion = await engine.version(signal)
      this.#runtimes = await engine.runtimes(signal)
    } catch (error) {
      log.warn({ err: error }, 'engine not asked for its version')
    }
  }
}

/** Name and version of the distribution. */
async function osName(): Promise<string> {
  try {
    const { NAME = '', VERSION_ID = '' } = parseEnv(await readFile(OS_RELEASE, 'utf8'))
    if (NAME !== '') return `${NAME} ${VERSION_ID}`.trim()
  } catch {
    // A host of the few without it.
  }
  return askForOsName()
}

/** The library starts programs, and nothing is served meanwhile: loaded and asked where the file does not tell. */
async function askForOsName(): Promise<string> {
  try {
    const { default: systeminformation } = await import('systeminformation')
    const { distro, release: version } = await systeminformation.osInfo()
    return `${distro} ${version}`.trim() || 'unknown'
  } catch {
    // No name of the distribution is no reason not to serve.
    return 'unknown'
  }
}
