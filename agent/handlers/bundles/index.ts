/**
 * Unpacked function bundles, content-addressed by the digest of their artifact.
 * Depends on shared, node:zlib (zstd) and tar-stream. Used by agent/handlers/index.ts.
 */
export { BundleStore, type ArtifactSource, type BundleStoreOptions } from './bundle-store.ts'
export { unpackBundle, type UnpackLimits } from './unpack.ts'
