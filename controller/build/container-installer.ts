import { mkdir, readFile } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { finished } from 'node:stream/promises'
import type Docker from 'dockerode'
import { pack } from 'tar-stream'
import { Fault } from '#shared/fault.ts'
import type { Images } from '#shared/schemas/images.ts'
import type { Arch, Runtime } from '#shared/schemas/names.ts'
import { buildEnv } from './build-env.ts'
import { packTar } from './bundle.ts'
import type { ProxySettings } from './download.ts'
import { shellScript } from './install.ts'
import type { InstallJob, Installer } from './installer.ts'
import type { BuildLimits } from './model.ts'
import { TreeWriter } from './tree-writer.ts'
import { unpackTar } from './unpack.ts'

/** Files travel by the engine's archive calls: no shared folder, so no foreign owners in it, and the engine may be remote. */
const HOME = 'shoal-build'
const USER_ID = 10_001
const CA_FILE = `/${HOME}/ca.pem`

export interface ContainerInstallerOptions {
  readonly docker: Docker
  readonly images: Images
  /** Value of the label `shoal` on every container. */
  readonly installation: string
  /** PEM file whose certificates builds trust. */
  readonly caFile?: string | undefined
  readonly proxy?: ProxySettings | undefined
  /** More environment for builds, e.g. `npm_config_registry`, `PIP_INDEX_URL`. */
  readonly env?: Readonly<Record<string, string>> | undefined
  /** Engine network that builds use to reach registries. */
  readonly network: string
  readonly limits: BuildLimits
}

/** Installs in a fresh container of the runtime's builder image, without capabilities and not as root. */
export class ContainerInstaller implements Installer {
  readonly scripts = true
  readonly #options: ContainerInstallerOptions

  constructor(options: ContainerInstallerOptions) {
    this.#options = options
  }

  get arch(): Arch {
    return this.#options.images.arch
  }

  builderId(runtime: Runtime): string {
    const image = this.#options.images.docker?.[runtime]?.build
    if (image !== undefined) return image
    throw new Fault(
      'IMAGE_MISSING',
      `there is no builder image for ${runtime} in images.json: run npm start once, it makes them`,
      { runtime },
    )
  }

  async install(job: InstallJob, signal: AbortSignal): Promise<void> {
    const container = await this.#create(job, signal)
    try {
      await this.#send(container, job, signal)
      await this.#run(container, job, signal)
      await this.#fetch(container, job, signal)
    } catch (error) {
      throw signal.aborted ? error : engineFault(error)
    } finally {
      await removeContainer(container)
    }
  }

  async sweep(signal: AbortSignal): Promise<void> {
    const filters = { label: [`shoal=${this.#options.installation}`, 'shoal.build'] }
    const left = await this.#options.docker
      .listContainers({ all: true, filters, abortSignal: signal })
      .catch((error: unknown) => {
        throw engineFault(error)
      })
    for (const { Id } of left) await removeContainer(this.#options.docker.getContainer(Id))
  }

  async #create(job: InstallJob, signal: AbortSignal): Promise<Docker.Container> {
    const { docker, installation, limits, network } = this.#options
    const image = this.builderId(job.runtime)
    const memory = limits.memoryMiB * 1024 * 1024
    try {
      return await docker.createContainer({
        Image: image,
        Entrypoint: ['/bin/sh', '-c'],
        Cmd: [shellScript(job.plan.steps)],
        User: `${USER_ID}:${USER_ID}`,
        WorkingDir: `/${HOME}/src`,
        Env: Object.entries(this.#env()).map(([name, value]) => `${name}=${value}`),
        Labels: { shoal: installation, 'shoal.build': job.id },
        AttachStdout: true,
        AttachStderr: true,
        HostConfig: {
          NetworkMode: network,
          CapDrop: ['ALL'],
          SecurityOpt: ['no-new-privileges'],
          Memory: memory,
          MemorySwap: memory,
          PidsLimit: limits.pids,
          NanoCpus: Math.round(limits.cpus * 1e9),
          // Handlers on the same host go first.
          CpuShares: 256,
          LogConfig: { Type: 'json-file', Config: { 'max-size': '1m', 'max-file': '1' } },
        },
        abortSignal: signal,
      })
    } catch (error) {
      if (statusOf(error) !== 404) throw engineFault(error)
      throw new Fault(
        'IMAGE_MISSING',
        `the builder image of ${job.runtime} (${image}) is not on this host: run npm start, it makes it again`,
        { runtime: job.runtime, image },
        { cause: error },
      )
    }
  }

  #env(): Record<string, string> {
    const { caFile, proxy, env } = this.#options
    const seen = caFile === undefined ? undefined : CA_FILE
    const common = buildEnv({ home: `/${HOME}/home`, caFile: seen, proxy, env })
    return { TMPDIR: `/${HOME}/tmp`, ...common }
  }

  /** Puts the work folders, the CA bundle (read-only) and the function's files into the container. */
  async #send(container: Docker.Container, job: InstallJob, signal: AbortSignal): Promise<void> {
    const { caFile } = this.#options
    const frame = pack()
    const mine = { uid: USER_ID, gid: USER_ID, mode: 0o755, mtime: new Date(0) }
    frame.entry({ name: HOME, type: 'directory', mode: 0o755, mtime: new Date(0) })
    for (const folder of ['src', 'home', 'tmp']) {
      frame.entry({ ...mine, name: `${HOME}/${folder}`, type: 'directory' })
    }
    if (caFile !== undefined) {
      const content = await readFile(caFile).catch((cause: unknown) => {
        const message = `cannot read the CA bundle ${caFile}: check SHOAL_CA_BUNDLE`
        throw new Fault('CONFIG_INVALID', message, {}, { cause })
      })
      frame.entry({ name: CA_FILE.slice(1), mode: 0o444, mtime: new Date(0) }, content)
    }
    frame.finalize()
    const files = packTar(job.folder, job.tree, { id: USER_ID }, signal)
    try {
      await container.putArchive(Readable.from(frame), { path: '/', abortSignal: signal })
      await container.putArchive(files, { path: `/${HOME}/src`, abortSignal: signal })
    } finally {
      files.destroy()
    }
  }

  async #run(container: Docker.Container, job: InstallJob, signal: AbortSignal): Promise<void> {
    const { docker, limits } = this.#options
    const attached = await container.attach({
      stream: true,
      stdout: true,
      stderr: true,
      abortSignal: signal,
    })
    const [out, err] = [job.output.sink(), job.output.sink()]
    docker.modem.demuxStream(attached, out, err)
    await container.start({ abortSignal: signal })
    await finished(attached, { writable: false, signal })
    for (const sink of [out, err]) await finished(sink.end())
    const { StatusCode: status } = await container.wait({ abortSignal: signal })
    if (status === 0) return
    const { State: state } = await container.inspect({ abortSignal: signal })
    const why = state.OOMKilled
      ? `it needed more than ${limits.memoryMiB} MiB of memory`
      : `${job.plan.tool} ended with exit code ${status}`
    throw new Fault('BUILD_FAILED', `installing dependencies failed: ${why}`, {
      lines: [...job.output.last],
      exitCode: status,
    })
  }

  /** Brings the folder back, with the same checks as an upload: what ran in there is not trusted. */
  async #fetch(container: Docker.Container, job: InstallJob, signal: AbortSignal): Promise<void> {
    await mkdir(job.into)
    const archive = await container.getArchive({ path: `/${HOME}/src`, abortSignal: signal })
    const stream = Readable.from(archive)
    try {
      await unpackTar(stream, [], new TreeWriter(job.into), { prefix: 'src/' }, signal)
    } catch (error) {
      if (!Fault.is(error, 'BUNDLE_INVALID')) throw error
      const message = `what the installation left cannot be taken: ${error.message}`
      throw new Fault('BUILD_FAILED', message, { lines: [...job.output.last] }, { cause: error })
    }
  }
}

/** Also when the build was called off, so without its signal. */
async function removeContainer(container: Docker.Container): Promise<void> {
  try {
    await container.remove({ force: true, v: true })
  } catch (error) {
    // Gone already, or being removed by somebody else.
    if (![404, 409].includes(statusOf(error))) throw engineFault(error)
  }
}

function statusOf(error: unknown): number {
  return error instanceof Error && 'statusCode' in error ? Number(error.statusCode) : 0
}

function engineFault(error: unknown): unknown {
  if (error instanceof Fault) return error
  if (error instanceof Error && error.name === 'AbortError') return error
  const message = error instanceof Error ? error.message : String(error)
  if (error instanceof Error && 'code' in error && error.code === 'ENOSPC') {
    return new Fault('STORAGE', `no space left for the build: ${message}`, {}, { cause: error })
  }
  return new Fault(
    'ENGINE_UNAVAILABLE',
    `the container engine did not do its part of the build: ${message}`,
    {},
    { cause: error },
  )
}
