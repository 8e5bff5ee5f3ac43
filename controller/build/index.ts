/**
 * Turns a function's source (tar, zip, URL, folder) into a bundle: detect the runtime, install dependencies, pack, remember.
 *
 * Depends on: `#shared`, a Docker engine handed in (or the host's npm and pip). Used by: the release API, the CLI (packing only).
 *
 * @module
 */
export { createBuilder } from './builder.ts'
export type { BuilderOptions, BuildLog } from './builder.ts'
export type { ArchiveType, BuildLimits, BuildOptions, Builder, Built, Source } from './model.ts'
export { BUILD_LIMITS } from './model.ts'
export { packBundle, packTar } from './bundle.ts'
export type { PackedBundle } from './bundle.ts'
export { isJunk, readTree } from './tree.ts'
export type { TreeEntry } from './tree.ts'
