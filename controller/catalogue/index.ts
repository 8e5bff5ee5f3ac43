/**
 * Functions, their immutable releases, and the content-addressed folder that holds the bundles.
 * Depends on: store, events, shared; a `Builder` is handed in.
 * Used by: fleet (artifacts), api, controller/main.ts.
 */
export { ArtifactStore } from './artifact-store.ts'
export type { ArtifactFile } from './artifact-store.ts'
export type { Builder, BuiltBundle, Source } from './builder.ts'
export { Catalogue, releaseId } from './catalogue.ts'
export type { CatalogueOptions, Published } from './catalogue.ts'
export { Turns } from './turns.ts'
