import { createHash, randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { zstdCompress } from 'node:zlib'
import { pack } from 'tar-stream'
import {
  BundleStore,
  DockerEngine,
  ProcessEngine,
  type ArtifactSource,
  type Engine,
  type HandlerTimings,
  type ImagesSource,
} from '#agent/handlers/index.ts'
import { InvokeRouter } from '#agent/invoke/index.ts'
import { Reconciler, type ReconcilerOptions } from '#agent/reconcile/index.ts'
import { systemClock } from '#shared/clock.ts'
import type { Fault } from '#shared/fault.ts'
import type { Assignment, FunctionSettings } from '#shared/schemas/command.ts'
import type { FunctionReport, LogLine } from '#shared/schemas/health.ts'
import type { EngineKind } from '#shared/schemas/names.ts'
import { collectBytes } from './bytes.ts'
import { eventually } from './eventually.ts'
import { testImages } from './images.ts'
import { invocation } from './invoke-scope.ts'
import { tempFolder, type TempFolder } from './temp.ts'

export const SETTINGS: FunctionSettings = {
  replicas: 1,
  concurrency: 16,
  queue: 256,
  timeoutMs: 20_000,
  memoryMiB: 128,
  cpus: 1,
  pids: 64,
  network: 'none',
  env: {},
  requireContainers: false,
  errors: 'status',
}

/** One file or many, as the bundle of a nodejs function. */
export type Files = Readonly<Record<string, string>>

/** A function that answers with `text` and the request's body. */
export function answering(text: string): Files {
  return {
    'index.mjs': `export default async (request) => new Response(${JSON.stringify(text)} + await request.text())`,
  }
}

/** Packs files as our builder does: tar, zstd. */
export async function packBundle(files: Files): Promise<Buffer> {
  const tar = pack()
  for (const [name, text] of Object.entries(files)) tar.entry({ name, mtime: new Date(0) }, text)
  tar.finalize()
  const bytes = await collectBytes(tar)
  return promisify(zstdCompress)(bytes)
}

/** Artifacts in a folder, by digest; counts how often each is asked for. */
export class FolderSource implements ArtifactSource {
  readonly folder: string
  readonly fetched: string[] = []
  /** When set, every fetch fails with it. */
  failure: Fault | undefined

  constructor(folder: string) {
    this.folder = folder
  }

  async add(files: Files): Promise<Assignment['artifact']> {
    const bytes = await packBundle(files)
    const hex = createHash('sha256').update(bytes).digest('hex')
    await mkdir(this.folder, { recursive: true })
    await writeFile(join(this.folder, hex), bytes)
    return { digest: `sha256:${hex}`, bytes: bytes.length }
  }

  async fetch(digest: string): Promise<string> {
    this.fetched.push(digest)
    if (this.failure !== undefined) throw this.failure
    return join(this.folder, digest.slice('sha256:'.length))
  }
}

export interface NodeOptions {
  readonly kind: EngineKind
  /** Absolute; everything of the agent lies below. */
  readonly folder: string
  readonly installation: string
  /** Default: Docker's usual one. */
  readonly dockerSocket?: string
}

const RUNNER = join(import.meta.dirname, '../../runtimes/nodejs/main.ts')

/** The engine as an agent would make it, on this machine's runtimes. */
export function makeEngine({
  kind,
  folder,
  installation,
  dockerSocket = '/var/run/docker.sock',
}: NodeOptions): Engine {
  const command = [process.execPath, RUNNER]
  const images: ImagesSource = {
    load: async () =>
      kind === 'docker' ? testImages() : { arch: 'amd64', process: { nodejs: { command } } },
  }
  if (kind === 'docker') {
    return new DockerEngine({ socketPath: dockerSocket, installation, images })
  }
  return new ProcessEngine({ folder: join(folder, 'h'), installation, images, env: process.env })
}

/** A reconciler with everything around it, as agent/main.ts wires it, in one folder. */
export interface ReconcileNode extends AsyncDisposable {
  readonly engine: Engine
  readonly router: InvokeRouter
  readonly reconciler: Reconciler
  readonly bundles: BundleStore
  readonly source: FolderSource
  readonly lines: readonly LogLine[]
  readonly timings: readonly HandlerTimings[]
  /** What was logged as a warning or an error. */
  readonly complaints: readonly string[]
  /** As an agent that is stopped (`removeHandlers: false`: handlers go on). */
  close(removeHandlers: boolean): Promise<void>
}

export async function startNode(
  options: NodeOptions,
  changes: Partial<ReconcilerOptions> = {},
): Promise<ReconcileNode> {
  const { folder } = options
  const lines: LogLine[] = []
  const timings: HandlerTimings[] = []
  const complaints: string[] = []
  const complain = (fields: object, message: string): void => {
    complaints.push(`${message} ${JSON.stringify(fields)}`)
  }
  const log = { debug: () => {}, info: () => {}, warn: complain, error: complain }
  const engine = changes.engine ?? makeEngine(options)
  const router = new InvokeRouter({ log })
  const source = new FolderSource(join(folder, 'artifacts'))
  const bundles = await BundleStore.open({ folder: join(folder, 'bundles'), source })
  const reconciler = await Reconciler.start({
    engine,
    router,
    bundles,
    folder: join(folder, 'h'),
    clock: systemClock,
    log,
    onLog: (line) => lines.push(line),
    onStarted: (_, took) => timings.push(took),
    keepMs: 0,
    ...changes,
  })
  const close = async (removeHandlers: boolean): Promise<void> => {
    await reconciler.close({ removeHandlers })
    await router.close(0)
    await engine[Symbol.asyncDispose]()
  }
  return {
    engine,
    router,
    reconciler,
    bundles,
    source,
    lines,
    timings,
    complaints,
    close,
    [Symbol.asyncDispose]: () => close(true),
  }
}

/** A folder and an installation of this test's own. Disposing removes every handler of it and fails when one is left. */
export async function nodeBed(kind: EngineKind): Promise<NodeBed> {
  const temp: TempFolder = await tempFolder()
  const installation = `shoal-test-${randomBytes(6).toString('hex')}`
  const options = { kind, folder: temp.path, installation }
  return {
    ...options,
    async [Symbol.asyncDispose]() {
      await using engine = makeEngine(options)
      const signal = AbortSignal.timeout(30_000)
      const left = await engine.list(signal)
      for (const { id } of left) await engine.stop(id, 0, signal)
      await temp[Symbol.asyncDispose]()
      if (left.length > 0) throw new Error(`handlers left behind: ${JSON.stringify(left)}`)
    },
  }
}

export interface NodeBed extends NodeOptions, AsyncDisposable {}

let releases = 0

/** An assignment of a new release with these files. */
export async function assignmentOf(
  source: FolderSource,
  fn: string,
  files: Files,
  settings: Partial<FunctionSettings> = {},
): Promise<Assignment> {
  const artifact = await source.add(files)
  const release = `r${++releases}-${artifact.digest.slice(7, 15)}`
  return { fn, release, runtime: 'nodejs', artifact, settings: { ...SETTINGS, ...settings } }
}

/** Body of the answer as text. @throws Fault */
export async function call(router: InvokeRouter, fn: string, body = ''): Promise<string> {
  const result = await router.invoke(invocation({ fn, body: Buffer.from(body) }))
  const bytes = Buffer.isBuffer(result.body) ? result.body : await collectBytes(result.body)
  return bytes.toString()
}

/** The function's report once it is in this state. */
export function reported(
  { reconciler }: Pick<ReconcileNode, 'reconciler'>,
  fn: string,
  state: FunctionReport['state'],
  timeoutMs = 30_000,
): Promise<FunctionReport> {
  return eventually(
    () => {
      const report = reconciler.report().find((one) => one.fn === fn)
      if (report?.state === state) return report
      throw new Error(`${fn} is ${report?.state}: ${report?.reason?.message}`)
    },
    { timeoutMs },
  )
}
