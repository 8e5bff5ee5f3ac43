import { homedir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { Compile } from 'typebox/compile'
import { Value } from 'typebox/value'
import { misspelt } from '#shared/env-names.ts'
import { Fault } from '#shared/fault.ts'
import { markFractions, settingProblems } from '#shared/setting-problems.ts'
import { ControllerConfig } from './schema.ts'

const validator = Compile(ControllerConfig)
const KEYS = Object.keys(ControllerConfig.properties)
const LISTS = new Set(['natsUrl', 'natsPublicUrl', 'compat'])

/** Everything the controller is told, with the paths that follow from other settings filled in. */
export type LoadedConfig = Readonly<ControllerConfig> & { readonly imagesFile: string }

/**
 * Turns environment variables (`SHOAL_API_PORT=7420`) into a frozen, checked config. An empty variable counts as not set.
 *
 * Without `SHOAL_CONTROLLER_DATA` the folder is `controller` in `SHOAL_DATA` (default `~/.local/share/shoal`).
 *
 * @throws Fault `CONFIG_INVALID`, listing every problem at once rather than the first one
 */
export function loadControllerConfig(
  env: Readonly<Record<string, string | undefined>>,
): LoadedConfig {
  const problems = unknownNames(env)
  const raw: Record<string, unknown> = {}
  for (const key of KEYS) {
    const value = env[settingName(key)] ?? ''
    if (value !== '') raw[key] = LISTS.has(key) ? splitList(value) : value
  }
  const controllerData = resolve(
    env['SHOAL_CONTROLLER_DATA'] || join(dataFolder(env), 'controller'),
  )
  raw['controllerData'] = controllerData
  raw['imagesFile'] ??= join(dirname(controllerData), 'images.json')
  const candidate = Value.Convert(
    ControllerConfig,
    Value.Default(ControllerConfig, markFractions(ControllerConfig, raw)),
  )
  const valid = validator.Check(candidate)
  if (!valid) {
    const errors = validator.Errors(candidate)
    problems.push(...settingProblems(ControllerConfig, errors, settingName, env))
  }
  if (!valid || problems.length > 0) {
    throw new Fault('CONFIG_INVALID', problems.join('; '), { source: 'environment', problems })
  }
  return Object.freeze({ ...candidate, imagesFile: candidate.imagesFile ?? '' })
}

/** `apiPort` -> `SHOAL_API_PORT` */
export function settingName(key: string): string {
  return `SHOAL_${key.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`
}

function splitList(text: string): string[] {
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
}

function dataFolder(env: Readonly<Record<string, string | undefined>>): string {
  return env['SHOAL_DATA'] || join(homedir(), '.local/share/shoal')
}

/** `SHOAL_` names that nobody has: those that look like one of ours were meant for us, and would silently do nothing. */
function unknownNames(env: Readonly<Record<string, string | undefined>>): string[] {
  const ours = KEYS.map(settingName)
  return Object.keys(env)
    .filter((name) => name.startsWith('SHOAL_'))
    .flatMap((name) => {
      const meant = misspelt(name, ours)
      return meant === undefined ? [] : [`${name} is not a setting; was ${meant} meant?`]
    })
}
