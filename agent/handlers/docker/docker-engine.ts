import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import Docker from 'dockerode'
import { Fault } from '#shared/fault.ts'
import { RUNTIMES, type Runtime } from '#shared/schemas/names.ts'
import { timeLimit } from '#shared/time-limit.ts'
import type {
  Engine,
  HandlerExit,
  HandlerLimits,
  HandlerSpec,
  ObservedHandler,
  SpareSpec,
} from '../engine.ts'
import type { ImagesSource } from '../images-file.ts'
import {
  CODE_INSIDE,
  LABELS,
  containerName,
  containerOptions,
  limitOptions,
} from './container-options.ts'
import {
  changeFault,
  engineFault,
  isDoneAlready,
  isInitMissing,
  limited,
  startFault,
  unless,
  type Change,
} from './docker-errors.ts'
import { ExitWatch, type ExitWatchOptions } from './exit-watch.ts'
import { demultiplex } from './logs.ts'

const QUICK_MS = 15_000
/** A slow disk under load takes its time to mount and unmount layers. */
const SLOW_MS = 60_000
const TAIL_LINES = 400

// What the engine answers when somebody else was faster, by HTTP status.
// https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container
const NOT_RUNNING: readonly number[] = [304, 404, 409]
const REMOVED: readonly number[] = [404, 409]

export interface DockerEngineOptions extends Pick<ExitWatchOptions, 'oomNewsMs'> {
  /** Of the daemon, e.g. `/var/run/docker.sock`. */
  readonly socketPath: string
  /** Value of the label `shoal` on everything this engine makes; it sees and touches nothing without it. */
  readonly installation: string
  readonly images: ImagesSource
  /** Docker runtime for handlers, e.g. `runsc`; default: the daemon's. */
  readonly runtime?: string | undefined
  /** Gets what the operator should know: the engine lacks something that can be done without. */
  readonly onWarning?: ((text: string) => void) | undefined
}

const WITHOUT_INIT =
  'Docker has no docker-init here: handlers run without it, so processes that a function leaves behind stay as zombies and count against its limit of processes (dockerd looks for it on its PATH, or at its --init-path)'

/** Handlers as sandboxed containers. Needs Docker Engine API 1.41 or newer, with cgroup v1, hybrid or v2. */
export class DockerEngine implements Engine {
  readonly kind = 'docker'
  readonly #docker: Docker
  readonly #options: DockerEngineOptions
  readonly #closed = new AbortController()
  readonly #watches = new Set<ExitWatch>()
  /** Handler ids that this process has paused. */
  readonly #paused = new Set<string>()
  /** Handler ids of probes under way: not reported as handlers. One left behind by a crash is, and so gets removed. */
  readonly #probing = new Set<string>()
  #hasInit = true

  constructor(options: DockerEngineOptions) {
    this.#options = options
    this.#docker = new Docker({ socketPath: options.socketPath })
  }

  codeDirInside(): string {
    return CODE_INSIDE
  }

  async identity(runtime: Runtime): Promise<string> {
    return this.#image(runtime)
  }

  async version(signal: AbortSignal): Promise<string> {
    const { Version } = await this.#call('version', QUICK_MS, signal, () => this.#docker.version())
    return Version
  }

  async runtimes(signal: AbortSignal): Promise<readonly Runtime[]> {
    const found: Runtime[] = []
    for (const runtime of RUNTIMES) {
      const image = await this.#image(runtime).catch(() => undefined)
      if (image !== undefined && (await this.#hasImage(image, signal))) found.push(runtime)
    }
    return found
  }

  async list(signal: AbortSignal): Promise<readonly ObservedHandler[]> {
    const filters = { label: [`${LABELS.installation}=${this.#options.installation}`] }
    const containers = await this.#call('list', QUICK_MS, signal, (abortSignal) =>
      this.#docker.listContainers({ all: true, filters, abortSignal }),
    )
    const observed: ObservedHandler[] = []
    for (const container of containers) {
      const id = container.Labels[LABELS.handler]
      if (id === undefined || this.#probing.has(id)) continue
      const state = stateOf(container.State)
      observed.push({
        id,
        ...purposeOf(container.Labels),
        state,
        ...(state === 'exited' ? await this.#exit(id, signal) : {}),
      })
    }
    return observed
  }

  async start(spec: HandlerSpec, signal: AbortSignal): Promise<void> {
    await this.#start(spec, signal)
  }

  async startSpare(spec: SpareSpec, signal: AbortSignal): Promise<void> {
    await this.#start(spec, signal)
  }

  async update(id: string, limits: HandlerLimits, signal: AbortSignal): Promise<void> {
    await this.#change('update', id, signal, (container, abortSignal) =>
      container.update({ ...limitOptions(limits), abortSignal }),
    )
  }

  async pause(id: string, signal: AbortSignal): Promise<void> {
    await this.#change('pause', id, signal, (container, abortSignal) =>
      container.pause({ abortSignal }),
    )
    this.#paused.add(id)
  }

  /**
   * Docker hears of each change once more, late: hearing that a container was resumed makes it forget, for milliseconds, that it has been
   * paused since. So "is not paused" is not believed at once of one that was paused here: it would sleep on, and calls wait for it.
   */
  async unpause(id: string, signal: AbortSignal): Promise<void> {
    for (const waitMs of this.#paused.has(id) ? [0, 10, 50, 150] : [0]) {
      if (waitMs > 0) await sleep(waitMs, undefined, { signal })
      const changed = await this.#change('unpause', id, signal, (container, abortSignal) =>
        container.unpause({ abortSignal }),
      )
      if (changed) break
    }
    this.#paused.delete(id)
  }

  async stop(id: string, graceMs: number, signal: AbortSignal): Promise<void> {
    this.#paused.delete(id)
    if (!(await this.#isOurs(id, signal))) return
    for (const watch of this.#watches) watch.delete(id)
    if (graceMs > 0) await this.#terminate(id, graceMs, signal)
    await this.#remove(id, signal)
  }

  async tail(id: string, bytesMax: number, signal: AbortSignal): Promise<string> {
    try {
      const options = { stdout: true, stderr: true, follow: false, tail: TAIL_LINES } as const
      const raw = await this.#call('logs', QUICK_MS, signal, (abortSignal) =>
        this.#docker.getContainer(containerName(id)).logs({ ...options, abortSignal }),
      )
      return demultiplex(raw).subarray(-bytesMax).toString('utf8')
    } catch (error) {
      if (isGone(error)) return ''
      throw error
    }
  }

  watch(onExit: (exit: HandlerExit) => void, onLost: (error: Error) => void): Disposable {
    const { socketPath } = this.#options
    const watch = new ExitWatch({
      ...this.#options,
      docker: this.#docker,
      onExit: (exit) => {
        if (!this.#probing.has(exit.id)) onExit(exit)
      },
      onLost: (cause) =>
        onLost(
          new Fault(
            'ENGINE_UNAVAILABLE',
            `lost the connection to Docker at ${socketPath}: ${cause.message}`,
            { socketPath },
            { cause },
          ),
        ),
    })
    this.#watches.add(watch)
    return {
      [Symbol.dispose]: () => {
        this.#watches.delete(watch)
        watch[Symbol.dispose]()
      },
    }
  }

  async probe(signal: AbortSignal): Promise<number> {
    const runtime = (await this.runtimes(signal)).at(-1)
    if (runtime === undefined) {
      throw new Fault('IMAGE_MISSING', 'no runtime image on this host; `npm start` makes them')
    }
    const id = `probe${randomBytes(4).toString('hex').slice(0, 7)}`
    const startedAtMs = performance.now()
    this.#probing.add(id)
    try {
      await this.#startProbe(id, await this.#image(runtime), signal)
      await this.stop(id, 0, signal)
    } catch (error) {
      await this.#remove(id, timeLimit(QUICK_MS)).catch(() => undefined)
      throw error
    } finally {
      this.#probing.delete(id)
    }
    return performance.now() - startedAtMs
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort()
    for (const watch of this.#watches) watch[Symbol.dispose]()
    this.#watches.clear()
  }

  async #start(spec: HandlerSpec | SpareSpec, signal: AbortSignal): Promise<void> {
    const image = await this.#image(spec.runtime)
    try {
      await this.#startBy(image, spec, signal)
    } catch (error) {
      if (!isInitMissing(error)) throw startFault(error, spec, image)
      if (this.#hasInit) this.#options.onWarning?.(WITHOUT_INIT)
      this.#hasInit = false
      await this.#startBy(image, spec, signal).catch((again: unknown) => {
        throw startFault(again, spec, image)
      })
    }
  }

  async #startBy(image: string, spec: HandlerSpec | SpareSpec, signal: AbortSignal): Promise<void> {
    const { installation, runtime } = this.#options
    const options = containerOptions({ spec, installation, image, runtime, hasInit: this.#hasInit })
    try {
      signal.throwIfAborted()
      // Not given up with the caller: the engine would make the container all the same, and later than we could remove it.
      const container = await this.#call('create', SLOW_MS, this.#closed.signal, (abortSignal) =>
        this.#docker.createContainer({ ...options, abortSignal }),
      )
      for (const watch of this.#watches) watch.add(spec.id, container.id)
      await this.#call('start', SLOW_MS, signal, (abortSignal) => container.start({ abortSignal }))
    } catch (error) {
      for (const watch of this.#watches) watch.delete(spec.id)
      // Also when the caller gave up: the engine may have made the container all the same.
      await this.#remove(spec.id, timeLimit(QUICK_MS)).catch(() => undefined)
      throw error
    }
  }

  /** One call that changes a running handler, false when it was so already; see `pause` and `update` in `Engine` for what it throws. */
  async #change(
    what: Change,
    id: string,
    signal: AbortSignal,
    call: (container: Docker.Container, signal: AbortSignal) => Promise<unknown>,
  ): Promise<boolean> {
    const container = this.#docker.getContainer(containerName(id))
    try {
      await this.#call(what, QUICK_MS, signal, (abortSignal) => call(container, abortSignal))
      return true
    } catch (error) {
      if (!isDoneAlready(error, what)) throw changeFault(error, what, id)
      return false
    }
  }

  /** One container of the smallest kind: no mounts, no network, the image's own program (a runner that finds no agent). */
  async #startProbe(id: string, image: string, signal: AbortSignal): Promise<void> {
    const container = await this.#call('create probe', SLOW_MS, signal, (abortSignal) =>
      this.#docker.createContainer({
        name: containerName(id),
        Image: image,
        User: '65532:65532',
        Labels: { [LABELS.installation]: this.#options.installation, [LABELS.handler]: id },
        HostConfig: { NetworkMode: 'none', ReadonlyRootfs: true, CapDrop: ['ALL'], PidsLimit: 32 },
        abortSignal,
      }),
    )
    await this.#call('start probe', SLOW_MS, signal, (abortSignal) =>
      container.start({ abortSignal }),
    )
  }

  /** False also when there is no such container. */
  async #isOurs(id: string, signal: AbortSignal): Promise<boolean> {
    try {
      const { Config } = await this.#inspect(id, signal)
      return Config.Labels[LABELS.installation] === this.#options.installation
    } catch (error) {
      if (isGone(error)) return false
      throw error
    }
  }

  #inspect(id: string, signal: AbortSignal): Promise<Docker.ContainerInspectInfo> {
    const container = this.#docker.getContainer(containerName(id))
    return this.#call('inspect', QUICK_MS, signal, (abortSignal) =>
      container.inspect({ abortSignal }),
    )
  }

  /** SIGTERM, then at most `graceMs` for it to work. */
  async #terminate(id: string, graceMs: number, signal: AbortSignal): Promise<void> {
    const container = this.#docker.getContainer(containerName(id))
    await this.#call('kill', QUICK_MS, signal, (abortSignal) =>
      unless(NOT_RUNNING, container.kill({ signal: 'SIGTERM', abortSignal })),
    )
    const over = new AbortController()
    const both = AbortSignal.any([signal, over.signal])
    const gone = container.wait({ abortSignal: both }).catch(() => undefined)
    await Promise.race([gone, sleep(graceMs, undefined, { signal: both }).catch(() => undefined)])
    over.abort()
    signal.throwIfAborted()
  }

  async #remove(id: string, signal: AbortSignal): Promise<void> {
    const container = this.#docker.getContainer(containerName(id))
    await this.#call('remove', SLOW_MS, signal, (abortSignal) =>
      unless(REMOVED, container.remove({ force: true, v: true, abortSignal })),
    )
  }

  async #exit(id: string, signal: AbortSignal) {
    try {
      const { State } = await this.#inspect(id, signal)
      return { exitCode: State.ExitCode, oomKilled: State.OOMKilled }
    } catch (error) {
      // Removed between the list and now: its end is all there is to say.
      if (isGone(error)) return {}
      throw error
    }
  }

  async #image(runtime: Runtime): Promise<string> {
    const image = (await this.#options.images.load()).docker?.[runtime]?.run
    if (image !== undefined) return image
    throw new Fault(
      'IMAGE_MISSING',
      `this host has no Docker image for runtime ${runtime}; \`npm start\` makes the runtime images`,
      { runtime },
    )
  }

  async #hasImage(image: string, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#call('inspect image', QUICK_MS, signal, () =>
        this.#docker.getImage(image).inspect(),
      )
      return true
    } catch (error) {
      if (isGone(error)) return false
      throw error
    }
  }

  async #call<T>(
    what: string,
    limitMs: number,
    signal: AbortSignal,
    call: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    try {
      return await limited(call, limitMs, AbortSignal.any([signal, this.#closed.signal]))
    } catch (error) {
      throw engineFault(error, what, this.#options.socketPath)
    }
  }
}

function isGone(error: unknown): boolean {
  return Fault.is(error) && error.details['status'] === 404
}

/** What a container was started for, by its labels. */
function purposeOf(labels: Readonly<Record<string, string>>) {
  if (labels[LABELS.spare] !== undefined) return {}
  const { [LABELS.fn]: fn = '', [LABELS.release]: release = '' } = labels
  return { fn, release, specDigest: labels[LABELS.spec] ?? '' }
}

function stateOf(state: string): ObservedHandler['state'] {
  if (state === 'created') return 'created'
  if (state === 'paused') return 'paused'
  // `restarting` holds resources just as well; `removing` and `dead` are on their way out.
  return state === 'running' || state === 'restarting' ? 'running' : 'exited'
}
