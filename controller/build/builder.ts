import { randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import type Docker from 'dockerode'
import { Fault } from '#shared/fault.ts'
import type { Images } from '#shared/schemas/images.ts'
import { timeLimit } from '#shared/time-limit.ts'
import { Slots } from '../slots.ts'
import { packBundle } from './bundle.ts'
import { BundleCache } from './cache.ts'
import { ContainerInstaller } from './container-installer.ts'
import { detectRuntime, type Detected } from './detect.ts'
import type { ProxySettings } from './download.ts'
import { hashTree } from './hash.ts'
import { HostInstaller } from './host-installer.ts'
import { planInstall, PYTHON_PACKAGES, type InstallPlan } from './install.ts'
import type { Installer } from './installer.ts'
import { hasRequirements, parseManifest, type Manifest } from './manifest.ts'
import { BUILD_LIMITS } from './model.ts'
import type { BuildLimits, BuildOptions, Builder, Built, Source } from './model.ts'
import { OutputLines } from './output-lines.ts'
import { acquireSource } from './source.ts'
import { nativeArch } from './native.ts'
import { readTree, type TreeEntry } from './tree.ts'

/** What is said outside of a build's own output; a pino logger fits. */
export interface BuildLog {
  warn(fields: object, message: string): void
}

export interface BuilderOptions {
  /** The builder's own folder: bundles, temp folders. Made when missing; used by one builder at a time. */
  readonly folder: string
  readonly images: Images
  /** Absent: dependencies are installed by npm and pip of this host. */
  readonly docker?: Docker | undefined
  /** PEM file with certificates that downloads and builds trust beside the usual ones. */
  readonly ca?: string | undefined
  readonly proxy?: ProxySettings | undefined
  /** More environment for builds, e.g. `npm_config_registry`, `PIP_INDEX_URL`. */
  readonly env?: Readonly<Record<string, string>> | undefined
  /** Value of the label `shoal` on builder containers. Absent: made once and kept in `folder`. */
  readonly installation?: string | undefined
  /** Engine network of builder containers. Default `bridge`. */
  readonly network?: string | undefined
  /** Where npm and python3 are looked for without Docker. */
  readonly searchPath?: string | undefined
  readonly log: BuildLog
  readonly limits?: Partial<BuildLimits> | undefined
}

/** Makes a builder; it touches nothing before its first build. */
export function createBuilder(options: BuilderOptions): Builder {
  return new BundleBuilder(options)
}

interface Prepared {
  readonly root: string
  readonly tree: readonly TreeEntry[]
  readonly detected: Detected
  readonly plan: InstallPlan | undefined
}

class BundleBuilder implements Builder {
  readonly #options: BuilderOptions
  readonly #limits: BuildLimits
  readonly #cache: BundleCache
  readonly #slots: Slots
  readonly #closing = new AbortController()
  readonly #running = new Set<Promise<unknown>>()
  #installer: Promise<Installer> | undefined

  constructor(options: BuilderOptions) {
    this.#options = options
    this.#limits = { ...BUILD_LIMITS, ...options.limits }
    const { cacheBytesMax, cacheKeepMs, buildsAtOnce, buildsWaitingMax } = this.#limits
    const folder = path.join(options.folder, 'bundles')
    this.#cache = new BundleCache({ folder, bytesMax: cacheBytesMax, keepMs: cacheKeepMs })
    this.#slots = new Slots(buildsAtOnce, buildsWaitingMax, 'builds')
  }

  async build(
    source: Source,
    options: BuildOptions,
    onLine: (line: string) => void,
    signal: AbortSignal,
  ): Promise<Built> {
    const both = AbortSignal.any([signal, this.#closing.signal])
    const build = this.#build(source, options, onLine, both)
    this.#running.add(build)
    try {
      return await build
    } catch (error) {
      if (!both.aborted || Fault.is(error)) throw error
      const [code, why] = signal.aborted
        ? (['CALLER_GONE', 'the build was called off'] as const)
        : (['SHUTTING_DOWN', 'the builder stops'] as const)
      throw new Fault(code, why, {}, { cause: error })
    } finally {
      this.#running.delete(build)
      if (source.kind === 'stream') source.body.destroy()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort()
    await Promise.allSettled(this.#running)
  }

  async #build(
    source: Source,
    options: BuildOptions,
    onLine: (line: string) => void,
    signal: AbortSignal,
  ): Promise<Built> {
    const startMs = performance.now()
    const output = new OutputLines(onLine, this.#limits)
    if (this.#slots.full) output.line('waiting for other builds to end')
    const built = await this.#slots.run(async () => {
      const installer = await this.#ready(signal)
      const work = await mkdtemp(path.join(this.#options.folder, 'tmp', 'b-'))
      try {
        return await this.#buildIn(work, installer, source, options, output, signal)
      } finally {
        await rm(work, { recursive: true, force: true })
      }
    }, signal)
    return { ...built, tookMs: Math.round(performance.now() - startMs) }
  }

  async #buildIn(
    work: string,
    installer: Installer,
    source: Source,
    options: BuildOptions,
    output: OutputLines,
    signal: AbortSignal,
  ): Promise<Omit<Built, 'tookMs'>> {
    const { ca, proxy } = this.#options
    const fetchOptions = { ...this.#limits, timeoutMs: this.#limits.downloadTimeoutMs, proxy }
    const pem = ca === undefined || source.kind !== 'url' ? undefined : await readCa(ca)
    const root = await acquireSource(source, work, { ...fetchOptions, ca: pem }, signal)
    const prepared = await prepare(root, options, installer, output)
    const { detected, plan, tree } = prepared
    const builder = plan === undefined ? 'none' : installer.builderId(detected.runtime)
    const program = detected.runtime === 'binary' ? detected.entry : undefined
    const arch = plan === undefined ? await nativeArch(root, tree, program) : options.arch
    const sourceHash = await hashTree(root, tree, { ...detected, builder, arch }, signal)
    const known = await this.#cache.load(sourceHash)
    if (known !== undefined) {
      output.line('unchanged: using the bundle built earlier')
      return { ...known, file: this.#cache.file(known.digest), sourceHash, cached: true }
    }
    const ready =
      plan === undefined
        ? { folder: root, tree }
        : await this.#install(work, installer, prepared, plan, output, signal)
    const file = path.join(work, 'bundle')
    const packed = await packBundle(ready.folder, ready.tree, file, { executable: program }, signal)
    const entry = { ...detected, ...packed, arch }
    await this.#cache.save(sourceHash, entry, file)
    return { ...entry, file: this.#cache.file(packed.digest), sourceHash, cached: false }
  }

  async #install(
    work: string,
    installer: Installer,
    { root, tree, detected }: Prepared,
    plan: InstallPlan,
    output: OutputLines,
    signal: AbortSignal,
  ): Promise<{ folder: string; tree: readonly TreeEntry[] }> {
    if (!installer.scripts) {
      output.line(
        'warning: no container engine: dependencies are installed on this host, without their install scripts',
      )
    }
    output.line(plan.why)
    const into = path.join(work, 'built')
    const timeout = timeLimit(this.#limits.installTimeoutMs)
    const job = { id: path.basename(work), runtime: detected.runtime, plan, folder: root, tree }
    try {
      await installer.install({ ...job, into, output }, AbortSignal.any([signal, timeout]))
    } catch (error) {
      if (!timeout.aborted || signal.aborted || Fault.is(error, 'BUILD_FAILED')) throw error
      const seconds = this.#limits.installTimeoutMs / 1000
      const message = `installing dependencies took longer than ${seconds} s`
      throw new Fault('BUILD_FAILED', message, { lines: [...output.last] }, { cause: error })
    }
    return { folder: into, tree: await readTree(into) }
  }

  /** Once: the folders, what a killed controller left, and who installs. A failure is tried again by the next build. */
  #ready(signal: AbortSignal): Promise<Installer> {
    this.#installer ??= this.#open(signal).catch((error: unknown) => {
      this.#installer = undefined
      throw error
    })
    return this.#installer
  }

  async #open(signal: AbortSignal): Promise<Installer> {
    const { folder, images, docker, ca: caFile, proxy, env, log, network } = this.#options
    const limits = this.#limits
    await rm(path.join(folder, 'tmp'), { recursive: true, force: true })
    await mkdir(path.join(folder, 'tmp'), { recursive: true, mode: 0o700 })
    if (docker === undefined) {
      log.warn({}, 'no container engine: dependencies of functions are installed on this host')
      const searchPath = this.#options.searchPath ?? '/usr/local/bin:/usr/bin:/bin'
      return new HostInstaller({ arch: images.arch, searchPath, caFile, proxy, env })
    }
    const installation = this.#options.installation ?? (await ensureInstallationId(folder))
    const installer = new ContainerInstaller({
      docker,
      images,
      installation,
      caFile,
      proxy,
      env,
      network: network ?? 'bridge',
      limits,
    })
    await installer.sweep(signal)
    return installer
  }
}

/** Leaves out what is installed anew, and finds runtime, entry and what has to be installed. */
async function prepare(
  root: string,
  { runtime: wanted, arch }: BuildOptions,
  installer: Installer,
  output: OutputLines,
): Promise<Prepared> {
  const all = await readTree(root)
  const names = new Set(all.map((entry) => entry.path))
  const manifest = await loadManifest(root, names)
  const detected = detectRuntime(all, manifest, wanted)
  const requirements =
    names.has('requirements.txt') && hasRequirements(await readText(root, 'requirements.txt'))
  const rebuilt = rebuiltFolder(detected, names, requirements)
  const tree = all.filter(
    ({ path: at }) => rebuilt === undefined || (at !== rebuilt && !at.startsWith(`${rebuilt}/`)),
  )
  if (rebuilt !== undefined && tree.length < all.length) {
    output.line(`${rebuilt} of the upload is left out: dependencies are installed anew`)
  }
  const { arch: hostArch, scripts } = installer
  const files = new Set(tree.map((entry) => entry.path))
  const { runtime } = detected
  const input = { runtime, files, manifest, requirements, arch, hostArch, scripts }
  return { root, tree, detected, plan: planInstall(input) }
}

/** Without a package.json, an uploaded node_modules is all there is, and stays. */
function rebuiltFolder(
  { runtime }: Detected,
  names: ReadonlySet<string>,
  requirements: boolean,
): string | undefined {
  if (runtime === 'nodejs' && names.has('package.json')) return 'node_modules'
  return runtime === 'python3' && requirements ? PYTHON_PACKAGES : undefined
}

async function loadManifest(
  root: string,
  names: ReadonlySet<string>,
): Promise<Manifest | undefined> {
  if (!names.has('package.json')) return undefined
  return parseManifest(await readText(root, 'package.json'))
}

const TEXT_BYTES_MAX = 4 * 1024 * 1024

async function readText(root: string, name: string): Promise<string> {
  const content = await readFile(path.join(root, name))
  if (content.length <= TEXT_BYTES_MAX) return content.toString('utf8')
  throw new Fault('BUNDLE_INVALID', `${name} is larger than ${TEXT_BYTES_MAX} bytes`)
}

async function readCa(file: string): Promise<string> {
  return readFile(file, 'utf8').catch((cause: unknown) => {
    const message = `cannot read the CA bundle ${file}: check SHOAL_CA_BUNDLE`
    throw new Fault('CONFIG_INVALID', message, {}, { cause })
  })
}

async function ensureInstallationId(folder: string): Promise<string> {
  const file = path.join(folder, 'installation-id')
  const known = await readFile(file, 'utf8').catch(() => '')
  if (known !== '') return known.trim()
  const id = `build-${randomUUID()}`
  await writeFile(file, `${id}\n`, { flush: true })
  return id
}
