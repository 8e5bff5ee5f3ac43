/**
 * The command line client `shoal`: one file per command under `commands/`, its JSON answers in JSON.md.
 *
 * Depends on: `#shared`, `controller/api-client`, `controller/build` (packing). Used by: `shoal.mjs`, tests.
 *
 * @module
 */
export { buildProgram, runCli } from './program.ts'
export type { CliContext } from './context.ts'
export { EXIT, exitCodeOf } from './exit-codes.ts'
export type { ExitCode } from './exit-codes.ts'
export type { Output } from './output.ts'
