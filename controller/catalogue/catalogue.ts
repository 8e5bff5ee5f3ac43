import type { Clock } from '#shared/clock.ts'
import type { Release } from '#shared/schemas/api.ts'
import type { Arch, Runtime } from '#shared/schemas/names.ts'
import type { EventHub } from '../events/index.ts'
import type { Store } from '../store/index.ts'
import type { ArtifactStore } from './artifact-store.ts'
import type { Builder, BuiltBundle, Source } from './builder.ts'
import { Turns } from './turns.ts'

const WAITING_PER_FUNCTION_MAX = 4
/** Older releases that nothing refers to are forgotten. */
const RELEASES_KEPT = 50
/** An artifact younger than this stays, referred to or not: a node may be fetching it. */
const GARBAGE_AGE_MS = 3_600_000

export interface CatalogueOptions {
  readonly store: Store
  readonly artifacts: ArtifactStore
  readonly builder: Builder
  readonly events: EventHub
  readonly clock: Clock
}

export interface Published {
  readonly release: Release
  /** The newest release was this already; nothing has changed. */
  readonly cached: boolean
}

/** Functions and their immutable releases. */
export class Catalogue {
  readonly #options: CatalogueOptions
  readonly #turns = new Turns(WAITING_PER_FUNCTION_MAX)

  constructor(options: CatalogueOptions) {
    this.#options = options
  }

  /**
   * Builds a source and records the result as the function's newest release. A build that fails changes nothing.
   * Deployments of one function wait for each other.
   *
   * @throws Fault `CONFLICT` and whatever the builder throws
   */
  async deploy(
    fn: string,
    source: Source,
    options: { readonly runtime?: Runtime | undefined; readonly arch: Arch },
    onLine: (line: string) => void,
    signal: AbortSignal,
  ): Promise<Published> {
    return this.#turns.take(
      fn,
      async () => {
        const built = await this.#options.builder.build(source, options, onLine, signal)
        return this.publish(fn, built, signal)
      },
      signal,
    )
  }

  /** Records a bundle as a release, unless the newest release is the same: digest, runtime, entry and architecture. */
  async publish(fn: string, built: BuiltBundle, signal?: AbortSignal): Promise<Published> {
    const { store, artifacts, clock, events } = this.#options
    // The file first: what the catalogue names is there.
    using held = artifacts.hold(built)
    await artifacts.put(held, built.file, signal)
    const published = await store.transaction(async (tx): Promise<Published> => {
      const newest = await tx.newestRelease(fn)
      if (newest !== undefined && sameBundle(newest, built)) {
        return { release: newest, cached: true }
      }
      const nowMs = clock.nowMs()
      if ((await tx.function(fn)) === undefined) {
        await tx.putFunction({ name: fn, createdAtMs: nowMs, placements: [] })
      }
      await tx.putArtifact({ digest: built.digest, bytes: built.bytes, createdAtMs: nowMs })
      const number = await tx.takeReleaseNumber(fn)
      const release: Release = {
        id: releaseId(number, built.digest),
        function: fn,
        number,
        runtime: built.runtime,
        ...(built.entry === undefined ? {} : { entry: built.entry }),
        digest: built.digest,
        bytes: built.bytes,
        arch: built.arch,
        sourceHash: built.sourceHash,
        createdAtMs: nowMs,
      }
      await tx.insertRelease(release)
      await tx.pruneReleases(fn, RELEASES_KEPT)
      return { release, cached: false }
    })
    if (!published.cached) events.publish({ type: 'function', function: fn, change: 'release' })
    return published
  }

  /** Removes artifacts that no release names any more. Returns their digests. */
  async collectGarbage(olderThanMs = GARBAGE_AGE_MS): Promise<string[]> {
    const { store, artifacts, clock } = this.#options
    await store.transaction((tx) => tx.pruneArtifacts())
    return artifacts.sweep(async (digest) => (await store.artifact(digest)) !== undefined, {
      olderThanMs,
      nowMs: clock.nowMs(),
    })
  }
}

/** `r<number>-<first 8 hex digits of the digest>` */
export function releaseId(number: number, digest: string): string {
  return `r${number}-${digest.slice('sha256:'.length, 'sha256:'.length + 8)}`
}

function sameBundle(release: Release, built: BuiltBundle): boolean {
  return (
    release.digest === built.digest &&
    release.runtime === built.runtime &&
    release.entry === built.entry &&
    release.arch === built.arch
  )
}
