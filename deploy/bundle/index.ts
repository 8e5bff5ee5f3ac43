/**
 * Releases: each program as one file, made by esbuild, with the licences of what is inside.
 *
 * Depends on: esbuild. Used by: `npm run bundle`, test/.
 *
 * @module
 */
export { buildRelease } from './release.ts'
export type { ReleaseOptions } from './release.ts'
