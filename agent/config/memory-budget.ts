import { totalmem } from 'node:os'

const MIB = 1024 * 1024

/**
 * The setting `memoryBudget` in MiB.
 *
 * @param setting - `80%` of the host's memory, or MiB
 */
export function memoryBudgetMiB(setting: string, hostMiB = totalmem() / MIB): number {
  const value = Number.parseInt(setting, 10)
  return setting.endsWith('%') ? Math.floor((hostMiB * value) / 100) : value
}
