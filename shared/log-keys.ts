/** The keys of structured log lines: one spelling everywhere, so that a search finds all of them. */
export const LOG_KEYS = {
  part: 'part',
  node: 'node',
  fn: 'fn',
  release: 'release',
  handler: 'handler',
  rollout: 'rollout',
  request: 'request',
  err: 'err',
} as const
