import { Fault, type FaultCode } from './fault.ts'

/** What to do about it, where the message itself does not say. */
const REMEDIES: Partial<Record<FaultCode, string>> = {
  CONFIG_INVALID: 'the README lists all settings',
  STORAGE: 'SHOAL_DATA names the data folder: this user must be able to write there',
  TRUST_INVALID: 'take a new token from `shoal node token` of the controller that you mean',
  ENGINE_UNAVAILABLE: 'start Docker, or see SHOAL_DOCKER_SOCKET',
}

/**
 * Why a part did not start, for people: a line `shoal-agent: <what> - <what to do>` per problem, without a stack. What nobody
 * expected keeps its stack, in the log.
 */
export function startFailureText(program: string, error: unknown): string {
  const fault = Fault.from(error)
  const { problems } = fault.details
  const texts = Array.isArray(problems) ? problems.map(String) : [fault.message]
  const remedy =
    fault.code === 'INTERNAL' ? 'the log line with it has the details' : REMEDIES[fault.code]
  return texts
    .map((text) => text.replaceAll(/\s*\n\s*/g, ' '))
    .map((text) => (text.includes(' - ') || remedy === undefined ? text : `${text} - ${remedy}`))
    .map((text) => `${program}: ${text}\n`)
    .join('')
}
