/**
 * The controller's settings: one schema with defaults, bounds and descriptions, read once from the environment.
 * Depends on: shared.
 * Used by: controller/main.ts.
 */
export { loadControllerConfig, settingName } from './load.ts'
export type { LoadedConfig } from './load.ts'
export { ControllerConfig } from './schema.ts'
