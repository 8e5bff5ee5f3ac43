import { AgentConfig, loadAgentConfig, settingName } from '#agent/config/index.ts'
import { ControllerConfig, loadControllerConfig } from '#controller/config/index.ts'
import { INTERNAL_NAMES, misspelt, OTHER_SETTINGS } from '#shared/env-names.ts'
import { Fault } from '#shared/fault.ts'
import { loadDeployConfig } from './config.ts'

/** What is wrong with the settings that a person gave, one line each. */
export interface SettingsFindings {
  /** With these nothing shall start. */
  readonly problems: readonly string[]
  /** Names that are none of ours, nor like one of ours: another program's, perhaps. */
  readonly warnings: readonly string[]
}

/** Looks at the settings of all parts, before anything is installed or started. */
export function checkSettings(env: NodeJS.ProcessEnv): SettingsFindings {
  const ours = [...namesOf(AgentConfig), ...namesOf(ControllerConfig), ...OTHER_SETTINGS]
  const unknown = Object.keys(env)
    .filter((name) => name.startsWith('SHOAL_'))
    .filter((name) => !ours.includes(name) && !INTERNAL_NAMES.includes(name))
  const problems: string[] = []
  const warnings: string[] = []
  for (const name of unknown) {
    const meant = misspelt(name, ours)
    if (meant === undefined) warnings.push(`${name} is not a setting of Shoal: ignored`)
    else problems.push(`${name} is not a setting; was ${meant} meant?`)
  }
  const known = Object.fromEntries(Object.entries(env).filter(([name]) => !unknown.includes(name)))
  const told = new Set<string>()
  for (const load of [loadAgentConfig, loadControllerConfig, loadDeployConfig]) {
    for (const problem of problemsOf(() => load(known))) {
      // Two parts may read one setting.
      const name = /^\w+/.exec(problem)?.[0] ?? problem
      if (told.has(name)) continue
      told.add(name)
      problems.push(problem)
    }
  }
  return { problems, warnings }
}

function namesOf({ properties }: typeof AgentConfig | typeof ControllerConfig): string[] {
  return Object.keys(properties).map((key) => settingName(key))
}

function problemsOf(load: () => unknown): readonly string[] {
  try {
    load()
    return []
  } catch (error) {
    if (!Fault.is(error, 'CONFIG_INVALID')) throw error
    const { problems } = error.details
    return Array.isArray(problems) ? problems.map(String) : [error.message]
  }
}
