import { Value } from 'typebox/value'
import { FunctionSettings } from '#shared/schemas/command.ts'

/** Default settings, with what a test wants different. */
export function settingsOf(different: Partial<FunctionSettings> = {}): FunctionSettings {
  return Value.Parse(FunctionSettings, Value.Default(FunctionSettings, { ...different }))
}
