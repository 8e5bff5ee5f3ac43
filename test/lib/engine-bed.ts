import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  newHandlerId,
  type Engine,
  type HandlerExit,
  type HandlerSpec,
  type SpareSpec,
} from '#agent/handlers/index.ts'
import { eventually } from './eventually.ts'

export interface EngineChanges {
  readonly images?: false
  readonly socketPath?: string
  /** The script runs as this runtime, too. */
  readonly nodejs?: true
  readonly onWarning?: (text: string) => void
  /** Of engine docker: see `ExitWatchOptions`. */
  readonly oomNewsMs?: number
}

/** What an implementation brings: engines over the same host, and runners that are the shell script `fn/main.sh` of the folder. */
export interface EngineBed extends AsyncDisposable {
  /** A new instance for an installation. `images: false`: one whose host has no runtimes. `socketPath`: of the daemon. */
  engine(installation: string, options?: EngineChanges): Engine
  /** The folder for handlers' folders. */
  readonly root: string
  /** An installation id of this test's own; everything with it is removed at the end. */
  readonly installation: string
}

export type SpecChanges = Partial<Pick<HandlerSpec, 'limits' | 'network' | 'runtime'>>

/** A handler that runs `script`. */
export async function scriptSpec(
  bed: Pick<EngineBed, 'root'>,
  script: string,
  changes: SpecChanges = {},
): Promise<HandlerSpec> {
  const id = newHandlerId()
  const folder = join(bed.root, id)
  await mkdir(join(folder, 'fn'), { recursive: true })
  await writeFile(join(folder, 'fn', 'main.sh'), script)
  return {
    id,
    fn: 'site/thermo',
    release: 'r1-0a1b2c3d',
    runtime: 'binary',
    folder,
    limits: { memoryMiB: 32, cpus: 1, pids: 32 },
    network: 'none',
    specDigest: 'sha256:spec',
    ...changes,
  }
}

/** A spare whose runner is `script`. */
export async function spareSpec(bed: Pick<EngineBed, 'root'>, script: string): Promise<SpareSpec> {
  const { id, runtime, folder, limits } = await scriptSpec(bed, script)
  return { id, runtime, folder, limits }
}

/** Says `tick` 50 times a second. */
export const TICKING = 'while :; do echo tick; sleep 0.02; done'

/** How much a handler has written, when it goes on to write and when it does not. */
export async function ticks(engine: Engine, id: string): Promise<number> {
  return (await engine.tail(id, 1024 * 1024, within())).length
}

/**
 * How much a paused handler has written: what it wrote last may come after the pause. Given up early, because Docker's tail ends at
 * 400 lines and looks settled then. @throws Error when it goes on to write
 */
export function settledTicks(engine: Engine, id: string): Promise<number> {
  return eventually(
    async () => {
      const before = await ticks(engine, id)
      await sleep(200)
      const after = await ticks(engine, id)
      return before === after && after
    },
    { timeoutMs: 5_000 },
  )
}

export function within(ms = 60_000): AbortSignal {
  return AbortSignal.timeout(ms)
}

/** Watches until disposed; `exits` grows. */
export function watching(engine: Engine): Disposable & { exits: HandlerExit[]; lost: Error[] } {
  const exits: HandlerExit[] = []
  const lost: Error[] = []
  const watch = engine.watch(
    (exit) => exits.push(exit),
    (error) => lost.push(error),
  )
  return { exits, lost, [Symbol.dispose]: () => watch[Symbol.dispose]() }
}
