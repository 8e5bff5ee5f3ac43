import type { Readable } from 'node:stream'
import type { BundleArch } from '#shared/schemas/api.ts'
import type { Arch, Runtime } from '#shared/schemas/names.ts'

/** Where an uploaded function's files come from. */
export type Source =
  | {
      readonly kind: 'stream'
      readonly type: 'tar' | 'tar.gz' | 'zip'
      readonly body: Readable
    }
  | { readonly kind: 'url'; readonly url: string; readonly subfolder?: string | undefined }

export interface BuiltBundle {
  readonly runtime: Runtime
  readonly entry?: string
  /** Stays the builder's: it is copied. */
  readonly file: string
  readonly digest: string
  readonly bytes: number
  readonly sourceHash: string
  readonly cached: boolean
  readonly arch: BundleArch
}

/** Turns a source into a bundle; what the catalogue needs of `controller/build`. */
export interface Builder {
  /** @throws Fault `BUNDLE_INVALID`, `RUNTIME_UNKNOWN`, `BUILD_FAILED` (`details.lines`) */
  build(
    source: Source,
    options: { readonly runtime?: Runtime | undefined; readonly arch: Arch },
    onLine: (line: string) => void,
    signal: AbortSignal,
  ): Promise<BuiltBundle>
}
