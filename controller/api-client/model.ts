import type { IncomingHttpHeaders } from 'node:http'
import type { Readable } from 'node:stream'
import type { FunctionSettings } from '#shared/schemas/command.ts'
import type { Arch, Runtime } from '#shared/schemas/names.ts'

export interface ApiClientOptions {
  /** e.g. `http://127.0.0.1:7420` */
  readonly url: string
  /** Bearer token. */
  readonly token: string
}

export type ReleaseSource =
  | { readonly kind: 'archive'; readonly type: ArchiveMime; readonly body: Readable | Uint8Array }
  | { readonly kind: 'url'; readonly url: string; readonly subfolder?: string | undefined }

export type ArchiveMime = 'application/x-tar' | 'application/gzip' | 'application/zip'

export interface ReleaseRequest {
  readonly source: ReleaseSource
  readonly runtime?: Runtime | undefined
  readonly arch?: Arch | undefined
  /** Nodes that it is for. */
  readonly selector?: string | undefined
}

export interface RolloutRequest {
  readonly function: string
  readonly release?: string | undefined
  readonly selector?: string | undefined
  readonly settings?: Partial<FunctionSettings> | undefined
  readonly deadlineMs?: number | undefined
}

export interface InvokeRequest {
  readonly method: string
  /** Rest of the path behind the name, with or without leading `/`. */
  readonly path?: string | undefined
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array
  readonly node?: string | undefined
}

export interface InvokeAnswer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Readable
}

export interface LogsRequest {
  readonly tail?: number | undefined
  readonly follow?: boolean | undefined
  readonly node?: string | undefined
}
