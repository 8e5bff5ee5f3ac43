import type { RolloutState } from '#shared/schemas/api.ts'

/** What `shoal` ends with. A contract: scripts test for it. */
export const EXIT = {
  done: 0,
  failed: 1,
  aborted: 2,
  timedOut: 3,
  /** Not there yet: nodes are offline, or the rollout goes on. */
  waiting: 4,
  /** Ctrl+C, as shells count it. */
  interrupted: 130,
} as const

export type ExitCode = (typeof EXIT)[keyof typeof EXIT]

const BY_STATE = {
  done: EXIT.done,
  failed: EXIT.failed,
  aborted: EXIT.aborted,
  'timed-out': EXIT.timedOut,
  waiting: EXIT.waiting,
  rolling: EXIT.waiting,
} as const satisfies Record<RolloutState, ExitCode>

export function exitCodeOf(state: RolloutState): ExitCode {
  return BY_STATE[state]
}

export const EXIT_HELP = `
Exit codes:
  0  done
  1  failed (the error and a hint are on stderr)
  2  aborted
  3  timed out
  4  waiting: offline nodes get it when they return, or the rollout goes on
  130  interrupted by Ctrl+C (a rollout goes on without the CLI)
`
