/**
 * The agent's configuration: from the environment to one frozen, checked object; and the folder that it runs in.
 *
 * Depends on: `#shared`. Used by: `agent/main.ts`, `deploy/docs.ts`.
 *
 * @module
 */
export { AgentFolder } from './agent-folder.ts'
export { loadAgentConfig } from './load.ts'
export type { LoadedConfig } from './load.ts'
export { memoryBudgetMiB } from './memory-budget.ts'
export { printableConfig, settingName, settingsHelp } from './settings.ts'
export { AgentConfig } from './schema.ts'
