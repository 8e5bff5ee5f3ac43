import type { Readable } from 'node:stream'
import type { Arch, Runtime } from '#shared/schemas/names.ts'

export type ArchiveType = 'tar' | 'tar.gz' | 'zip'

/** Where a function's files come from. What the first bytes say wins over `type`. */
export type Source =
  | { readonly kind: 'stream'; readonly type: ArchiveType; readonly body: Readable }
  | { readonly kind: 'url'; readonly url: string; readonly subfolder?: string | undefined }
  | { readonly kind: 'folder'; readonly path: string }

export interface BuildOptions {
  /** Absent: found from the files. */
  readonly runtime?: Runtime | undefined
  /** Architecture of the nodes that shall run it. */
  readonly arch: Arch
}

export interface Built {
  readonly runtime: Runtime
  /** File to load, relative to the bundle. */
  readonly entry?: string
  /** The bundle (deterministic tar, zstd). It stays the builder's, which may drop it an hour later: copy or hard-link it, do not move it. */
  readonly file: string
  /** `sha256:<hex>` over the bundle's bytes. */
  readonly digest: string
  readonly bytes: number
  /** `sha256:<hex>` over source, runtime, builder image and architecture. */
  readonly sourceHash: string
  /** True when nothing was built because the same source was built before. */
  readonly cached: boolean
  readonly tookMs: number
  /** `any` when nothing was installed and the uploaded files hold no program or library of one architecture alone. */
  readonly arch: Arch | 'any'
}

export interface Builder extends AsyncDisposable {
  /**
   * Builds one bundle. Waits for a free slot when others are being built.
   *
   * @param onLine - Gets each line of output, as it comes.
   * @throws Fault `BUNDLE_INVALID` (the source; names the entry), `RUNTIME_UNKNOWN`, `BUILD_FAILED` (`details.lines`: last lines),
   *   `IMAGE_MISSING`, `ENGINE_UNAVAILABLE`, `CALLER_GONE` (the signal)
   */
  build(
    source: Source,
    options: BuildOptions,
    onLine: (line: string) => void,
    signal: AbortSignal,
  ): Promise<Built>
}

/** Bounds of one build, and of what builds leave behind. */
export interface BuildLimits {
  /** Installing dependencies, altogether. */
  readonly installTimeoutMs: number
  readonly downloadTimeoutMs: number
  readonly redirectsMax: number
  readonly memoryMiB: number
  readonly pids: number
  readonly cpus: number
  /** Lines of output that are handed on; what comes after them is left out. */
  readonly linesMax: number
  /** Lines in the details of BUILD_FAILED. */
  readonly lastLines: number
  readonly buildsAtOnce: number
  readonly buildsWaitingMax: number
  readonly cacheBytesMax: number
  /** A bundle used within this time is never dropped from the cache. */
  readonly cacheKeepMs: number
}

export const BUILD_LIMITS: BuildLimits = {
  installTimeoutMs: 900_000,
  downloadTimeoutMs: 120_000,
  redirectsMax: 5,
  memoryMiB: 1024,
  pids: 512,
  cpus: 2,
  linesMax: 20_000,
  lastLines: 40,
  buildsAtOnce: 2,
  buildsWaitingMax: 32,
  cacheBytesMax: 2 * 1024 * 1024 * 1024,
  cacheKeepMs: 3_600_000,
}
