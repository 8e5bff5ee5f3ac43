import { join } from 'node:path'

const ROOT = join(import.meta.dirname, '../..')

/** One program of a release: one file of JavaScript that needs Node and nothing else. */
export interface Program {
  /** Name of its file, without `.mjs`. */
  readonly name: string
  /** Its source, absolute. */
  readonly entry: string
}

export const AGENT: Program = { name: 'agent', entry: join(ROOT, 'agent/main.ts') }

/** Everything a release holds. */
export const PROGRAMS: readonly Program[] = [
  AGENT,
  // For SHOAL_WORKERS: the agent starts it, and looks for it under this name beside itself.
  { name: 'agent-worker', entry: join(ROOT, 'agent/fronts/worker.ts') },
  { name: 'controller', entry: join(ROOT, 'controller/main.ts') },
  { name: 'shoal', entry: join(ROOT, 'controller/cli/main.ts') },
]
