import type { Arch, Runtime } from '#shared/schemas/names.ts'
import type { InstallPlan } from './install.ts'
import type { OutputLines } from './output-lines.ts'
import type { TreeEntry } from './tree.ts'

export interface InstallJob {
  /** Unique; goes on what is created for it. */
  readonly id: string
  readonly runtime: Runtime
  readonly plan: InstallPlan
  /** The function's files: read, never changed. */
  readonly folder: string
  readonly tree: readonly TreeEntry[]
  /** Where the files and what was installed go; does not exist yet. */
  readonly into: string
  readonly output: OutputLines
}

/** Where installing happens: in a builder container, or as processes of this host. */
export interface Installer {
  /** Architecture that installs natively. */
  readonly arch: Arch
  /** Whether packages' own install scripts may run. */
  readonly scripts: boolean
  /** Part of the content hash: another builder is another result. @throws Fault `IMAGE_MISSING` */
  builderId(runtime: Runtime): string
  /** @throws Fault `BUILD_FAILED` with the last lines, `ENGINE_UNAVAILABLE`, `IMAGE_MISSING` */
  install(job: InstallJob, signal: AbortSignal): Promise<void>
  /** Removes what an earlier controller left behind when it was killed. */
  sweep(signal: AbortSignal): Promise<void>
}
