import type { ConnectionOptions, Env } from '../connection.ts'

export type CheckLevel = 'ok' | 'warn' | 'fail'

/** What one check found; `hint` says what to do about it. */
export interface CheckResult {
  readonly check: string
  readonly level: CheckLevel
  readonly message: string
  readonly hint?: string
}

export interface DoctorInput {
  readonly options: ConnectionOptions
  readonly env: Env
}

export function ok(check: string, message: string): CheckResult {
  return { check, level: 'ok', message }
}

export function warn(check: string, message: string, hint: string): CheckResult {
  return { check, level: 'warn', message, hint }
}

export function fail(check: string, message: string, hint: string): CheckResult {
  return { check, level: 'fail', message, hint }
}
