import { randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import {
  DockerEngine,
  Handler,
  HandlerFolders,
  ProcessEngine,
  SparePool,
  newHandlerId,
  type Engine,
  type HandlerLimits,
  type HandlerOptions,
  type HandlerRecord,
  type SpareNeed,
  type SparePoolOptions,
  type SpareWant,
} from '#agent/handlers/index.ts'
import { InvokeRouter, type LaneSettings } from '#agent/invoke/index.ts'
import { systemClock } from '#shared/clock.ts'
import type { EngineKind, Runtime } from '#shared/schemas/names.ts'
import { collectBytes } from './bytes.ts'
import { eventually } from './eventually.ts'
import { testImages } from './images.ts'
import { LANE_SETTINGS, invocation } from './invoke-scope.ts'
import { tempFolder } from './temp.ts'

export const LIMITS_OF_HANDLER: HandlerLimits = { memoryMiB: 128, cpus: 1, pids: 64 }

/** The same answer from each runtime: `text` and the body. */
export function echoing(runtime: Runtime, text: string): Readonly<Record<string, string>> {
  const files: { readonly [K in Runtime]: Readonly<Record<string, string>> } = {
    nodejs: {
      'index.mjs': `export default async (request) => new Response(${JSON.stringify(text)} + await request.text())`,
    },
    python3: { 'fn.py': `def fn(input):\n    return ${JSON.stringify(text)} + input\n` },
    binary: { 'fn.sh': `#!/bin/sh\nprintf %s ${JSON.stringify(text)}; cat\n` },
  }
  return files[runtime]
}

export interface HandlerChanges {
  readonly limits?: Partial<HandlerLimits>
  readonly timeouts?: HandlerOptions['timeouts']
  readonly env?: Readonly<Record<string, string>>
  readonly fn?: string
  readonly concurrency?: number
  readonly timeoutMs?: number
  /** Made of a spare of this pool when it has one that fits. */
  readonly pool?: SparePool
}

/** Handlers on the real engine, without a reconciler. Disposing removes what is left of them. */
export interface HandlerScope extends AsyncDisposable {
  readonly kind: EngineKind
  readonly folder: string
  readonly installation: string
  readonly engine: Engine
  readonly folders: HandlerFolders
  readonly router: InvokeRouter
  readonly settings: LaneSettings
  /** Another instance of the engine, e.g. that of the next agent. */
  makeEngine(): Engine
  /** An unpacked bundle. */
  bundle(files: Readonly<Record<string, string>>): Promise<string>
  /** What would be written of a new handler. */
  record(runtime: Runtime, bundleFolder: string, changes?: HandlerChanges): HandlerRecord
  /** A new handler, not started. */
  handler(runtime: Runtime, bundleFolder: string, changes?: HandlerChanges): Promise<Handler>
  /** One that an earlier agent has left. */
  found(record: HandlerRecord, timeouts?: HandlerChanges['timeouts']): Handler
  pool(options?: Partial<SparePoolOptions>): SparePool
  want(runtime: Runtime, limits?: Partial<HandlerLimits>): Promise<SpareWant>
  /** Attaches a handler that is ready, and calls its function. */
  call(handler: Handler, body?: string): Promise<string>
  /** Takes it out of the lane again. */
  drain(handler: Handler): Promise<void>
}

/** Where a scope lives, when it is not its own: that of an agent that was killed. */
export interface HandlerPlace {
  readonly kind: EngineKind
  readonly folder: string
  readonly installation: string
}

export function engineAt({ kind, folder, installation }: HandlerPlace): Engine {
  const images = { load: async () => testImages() }
  return kind === 'docker'
    ? new DockerEngine({ socketPath: '/var/run/docker.sock', installation, images })
    : new ProcessEngine({ folder: join(folder, 'h'), installation, images, env: process.env })
}

/** @param engineOf - an engine in place of the usual one, for an installation */
export async function handlerScope(
  kind: EngineKind,
  engineOf?: (installation: string) => Engine,
): Promise<HandlerScope> {
  const temp = await tempFolder()
  const place = {
    kind,
    folder: temp.path,
    installation: `shoal-test-${randomBytes(6).toString('hex')}`,
  }
  const scope = new Scope(
    place,
    engineOf?.(place.installation) ?? engineAt(place),
    await HandlerFolders.open(temp.join('h')),
  )
  return Object.assign(scope, {
    async [Symbol.asyncDispose]() {
      await scope.close()
      await temp[Symbol.asyncDispose]()
    },
  })
}

class Scope {
  readonly kind: EngineKind
  readonly folder: string
  readonly installation: string
  readonly engine: Engine
  readonly folders: HandlerFolders
  readonly router = new InvokeRouter({ log: { info: () => {}, warn: () => {} } })
  readonly settings = LANE_SETTINGS
  readonly #place: HandlerPlace
  readonly #watch: Disposable
  readonly #handlers = new Map<string, Handler>()
  readonly #pools: SparePool[] = []
  #bundles = 0

  constructor(place: HandlerPlace, engine: Engine, folders: HandlerFolders) {
    this.kind = place.kind
    this.folder = place.folder
    this.installation = place.installation
    this.engine = engine
    this.folders = folders
    this.#place = place
    this.#watch = engine.watch(
      (exit) => this.#handlers.get(exit.id)?.exited(exit),
      () => {},
    )
  }

  makeEngine(): Engine {
    return engineAt(this.#place)
  }

  async bundle(files: Readonly<Record<string, string>>): Promise<string> {
    const folder = join(this.folder, 'bundles', String(++this.#bundles))
    for (const [name, text] of Object.entries(files)) {
      await mkdir(dirname(join(folder, name)), { recursive: true })
      await writeFile(join(folder, name), text, { mode: 0o755 })
    }
    return folder
  }

  async want(runtime: Runtime, limits: Partial<HandlerLimits> = {}): Promise<SpareWant> {
    const identity = await this.engine.identity(runtime)
    return { runtime, identity, limits: { ...LIMITS_OF_HANDLER, ...limits } }
  }

  record(runtime: Runtime, bundleFolder: string, changes: HandlerChanges = {}): HandlerRecord {
    const { limits = {}, env = {}, fn = 'echo', concurrency = 8, timeoutMs = 10_000 } = changes
    return {
      id: newHandlerId(),
      fn,
      release: 'r1-0a1b2c3d',
      runtime,
      digest: `sha256:${'0'.repeat(64)}`,
      bundleFolder,
      limits: { ...LIMITS_OF_HANDLER, ...limits },
      network: 'none',
      specDigest: 'sha256:spec',
      env: { ...env },
      concurrency,
      timeoutMs,
    }
  }

  async handler(
    runtime: Runtime,
    bundleFolder: string,
    changes: HandlerChanges = {},
  ): Promise<Handler> {
    const { limits = {}, timeouts = {}, pool } = changes
    const spare = pool?.take(await this.want(runtime, limits))
    const record = this.record(runtime, bundleFolder, changes)
    const named = spare === undefined ? record : { ...record, id: spare.id }
    return this.#keep(new Handler(this.#options(named, { spare, timeouts }), 'created'))
  }

  found(record: HandlerRecord, timeouts: HandlerChanges['timeouts'] = {}): Handler {
    return this.#keep(new Handler(this.#options(record, { timeouts }), 'found'))
  }

  pool(options: Partial<SparePoolOptions> = {}): SparePool {
    const { engine, folders } = this
    const log = { debug: () => {}, warn: () => {} }
    const pool = new SparePool({ engine, folders, log, count: 1, ...options })
    this.#pools.push(pool)
    return pool
  }

  async call(handler: Handler, body = ''): Promise<string> {
    const { fn } = handler.record
    const lane = this.router.ensure(fn, LANE_SETTINGS)
    if (handler.state.kind === 'ready') handler.attach(lane)
    const result = await this.router.invoke(invocation({ fn, body: Buffer.from(body) }))
    const bytes = Buffer.isBuffer(result.body) ? result.body : await collectBytes(result.body)
    return bytes.toString()
  }

  drain(handler: Handler): Promise<void> {
    return handler.drain(this.router.ensure(handler.record.fn, LANE_SETTINGS), 5_000)
  }

  async close(): Promise<void> {
    this.#watch[Symbol.dispose]()
    await this.router.close(0)
    for (const pool of this.#pools) await pool.close()
    for (const handler of this.#handlers.values()) await handler.leave()
    await this.engine[Symbol.asyncDispose]()
    await using last = this.makeEngine()
    const signal = AbortSignal.timeout(60_000)
    for (const { id } of await last.list(signal)) await last.stop(id, 0, signal)
  }

  #options(record: HandlerRecord, more: Partial<HandlerOptions>): HandlerOptions {
    const { engine, folders } = this
    const quiet = { onLog: () => {}, onChange: () => {} }
    return { record, engine, folders, clock: systemClock, ...quiet, ...more }
  }

  #keep(handler: Handler): Handler {
    this.#handlers.set(handler.id, handler)
    return handler
  }
}

/** A pool that has all the spares that it wants, and no more under way. */
export async function stocked(pool: SparePool, need: SpareNeed, count: number): Promise<void> {
  pool.tend(need)
  await eventually(() => pool.waiting === count && [...pool.ids].length === count, {
    timeoutMs: 60_000,
  })
}
