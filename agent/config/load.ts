import { homedir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { Compile } from 'typebox/compile'
import { Value } from 'typebox/value'
import { misspelt } from '#shared/env-names.ts'
import { Fault } from '#shared/fault.ts'
import { markFractions, settingProblems } from '#shared/setting-problems.ts'
import { AgentConfig } from './schema.ts'
import { KEYS, settingName, settingNames } from './settings.ts'

const validator = Compile(AgentConfig)

/** Bytes of a Unix socket's path (Linux: 108 with the closing zero). */
const SOCKET_PATH_BYTES_MAX = 107
/** A handler's socket inside the agent's folder: `/h/` + 12 characters + `/s`. */
const SOCKET_SUFFIX_BYTES = 17

/** Everything the agent is told, with the paths that follow from other settings filled in. */
export type LoadedConfig = Readonly<AgentConfig> & { readonly imagesFile: string }

/**
 * Turns environment variables (`SHOAL_HEARTBEAT_MS=2000`) into a frozen, checked config. An empty variable counts as not set.
 *
 * Without `SHOAL_AGENT_DATA` the agent's folder is `agent` in `SHOAL_DATA` (default `~/.local/share/shoal`).
 *
 * @throws Fault `CONFIG_INVALID`, listing every problem at once rather than the first one
 */
export function loadAgentConfig(env: Readonly<Record<string, string | undefined>>): LoadedConfig {
  const problems = unknownNames(env)
  const raw: Record<string, unknown> = {}
  const names = new Map<string, string>()
  for (const key of KEYS) {
    const name = settingNames(key).find((one) => (env[one] ?? '') !== '')
    names.set(key, name ?? settingName(key))
    if (name === undefined) continue
    raw[key] = key === 'nodeLabels' ? parseLabels(env[name] ?? '', name, problems) : env[name]
  }
  const agentData = resolve(
    typeof raw['agentData'] === 'string' ? raw['agentData'] : join(dataFolder(env), 'agent'),
  )
  raw['agentData'] = agentData
  raw['imagesFile'] ??= join(dirname(agentData), 'images.json')
  const candidate = Value.Convert(
    AgentConfig,
    Value.Default(AgentConfig, markFractions(AgentConfig, raw)),
  )
  const bytes = Buffer.byteLength(agentData) + SOCKET_SUFFIX_BYTES
  if (bytes > SOCKET_PATH_BYTES_MAX) {
    problems.push(
      `${env['SHOAL_AGENT_DATA'] ? 'SHOAL_AGENT_DATA' : 'SHOAL_DATA'} is ${bytes - SOCKET_PATH_BYTES_MAX} bytes too long: ` +
        `sockets below ${agentData} would have paths of ${bytes} bytes, ${SOCKET_PATH_BYTES_MAX} are possible`,
    )
  }
  const valid = validator.Check(candidate)
  if (!valid) {
    const nameOf = (key: string) => names.get(key) ?? key
    problems.push(...settingProblems(AgentConfig, validator.Errors(candidate), nameOf, env))
  }
  if (!valid || problems.length > 0) {
    throw new Fault('CONFIG_INVALID', problems.join('; '), { source: 'environment', problems })
  }
  return Object.freeze({ ...candidate, imagesFile: candidate.imagesFile ?? '' })
}

function dataFolder(env: Readonly<Record<string, string | undefined>>): string {
  const set = env['SHOAL_DATA'] ?? ''
  return set === '' ? join(homedir(), '.local/share/shoal') : set
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

function parseLabels(text: string, name: string, problems: string[]): Record<string, string> {
  const labels: Record<string, string> = {}
  for (const part of text.split(',')) {
    const pair = part.trim()
    if (pair === '') continue
    const at = pair.indexOf('=')
    const key = pair.slice(0, at)
    if (at < 1) problems.push(`${name}: "${pair}" is not key=value`)
    else if (Object.hasOwn(labels, key)) problems.push(`${name}: label ${key} comes twice`)
    else labels[key] = pair.slice(at + 1)
  }
  return labels
}
