import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { InvokeRouter, RunnerServer } from '#agent/invoke/index.ts'
import type {
  Invocation,
  LaneSettings,
  LinkEnd,
  RunnerInit,
  RunnerLink,
  RunnerLogLine,
  RunnerServerOptions,
} from '#agent/invoke/index.ts'
import { FramePeer } from './frame-peer.ts'

export const LANE_SETTINGS: LaneSettings = {
  concurrency: 8,
  queue: 16,
  timeoutMs: 10_000,
  errors: 'status',
  bodyBytesMax: 8 * 1024 * 1024,
}

/** An invocation of `fn` with whatever differs from a plain POST. */
export function invocation(fields: Partial<Invocation> = {}): Invocation {
  return {
    fn: 'echo',
    method: 'POST',
    path: '',
    query: '',
    headers: ['content-type', 'text/plain'],
    body: Buffer.from('hello'),
    protocol: 'http',
    requestId: 'r-1',
    deadlineMs: undefined,
    ...fields,
  }
}

export function runnerInit(fields: Partial<RunnerInit> = {}): RunnerInit {
  return {
    fn: 'echo',
    release: 'r1-0a1b2c3d',
    dir: '/shoal/fn',
    env: {},
    concurrency: 8,
    timeoutMs: 10_000,
    ...fields,
  }
}

/** A handler's socket in a folder of its own, with everything that its links said. */
export class LinkScope implements AsyncDisposable {
  readonly handler: string
  readonly folder: string
  readonly socketPath: string
  readonly router = new InvokeRouter({ log: { info: () => {}, warn: () => {} } })
  readonly links: RunnerLink[] = []
  readonly ends: LinkEnd[] = []
  readonly lines: RunnerLogLine[] = []
  readonly refused: string[] = []
  #server: RunnerServer | undefined
  #wake: (() => void) | undefined

  private constructor(folder: string) {
    this.handler = randomBytes(6).toString('hex')
    this.folder = folder
    this.socketPath = join(folder, 's')
  }

  static async open(options: Partial<RunnerServerOptions> = {}): Promise<LinkScope> {
    const scope = new LinkScope(await mkdtemp(join(tmpdir(), 'shoal-invoke-')))
    scope.#server = await RunnerServer.listen({
      socketPath: scope.socketPath,
      handlerId: scope.handler,
      onLink: (link) => scope.#open(link),
      onRefused: (reason) => scope.refused.push(reason),
      ...options,
    })
    return scope
  }

  get server(): RunnerServer {
    if (this.#server === undefined) throw new Error('not listening')
    return this.#server
  }

  /** The link that comes next, or has come last when one is there. */
  async link(): Promise<RunnerLink> {
    while (this.server.link === undefined) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#wake = resolve
      await promise
    }
    return this.server.link
  }

  /** A peer that is ready, its link attached to the lane `echo`. */
  async ready(settings: Partial<LaneSettings> = {}): Promise<FramePeer> {
    const connecting = FramePeer.ready(this.socketPath, this.handler)
    const link = await this.link()
    await link.init(runnerInit())
    this.router.ensure('echo', { ...LANE_SETTINGS, ...settings }).attach(link, 'r1-0a1b2c3d')
    return connecting
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.router.close(0)
    await this.#server?.close()
    await rm(this.folder, { recursive: true, force: true })
  }

  #open(link: RunnerLink): void {
    this.links.push(link)
    link.onLog = (line) => this.lines.push(line)
    link.onClose = (end) => this.ends.push(end)
    this.#wake?.()
  }
}
