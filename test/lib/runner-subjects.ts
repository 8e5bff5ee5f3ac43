import type { Runtime } from '#shared/schemas/names.ts'

/** The suite's functions, one folder of the fixtures each, and where a runtime differs by its nature. */
export interface Subject {
  readonly fixture: string
  readonly runtime: Runtime
  /** `nothing`: a blocked call leaves the runner able to answer pings. */
  readonly blocks: 'loop' | 'nothing'
  /** How a function that ends its process is seen. */
  readonly exit: 'connection closed' | 'error'
  readonly stdoutIsBody?: true
}

export const SUBJECTS: readonly Subject[] = [
  { fixture: 'nodejs', runtime: 'nodejs', blocks: 'loop', exit: 'connection closed' },
  { fixture: 'nodejs-classic', runtime: 'nodejs', blocks: 'loop', exit: 'connection closed' },
  { fixture: 'python3', runtime: 'python3', blocks: 'nothing', exit: 'connection closed' },
  { fixture: 'python3-async', runtime: 'python3', blocks: 'loop', exit: 'connection closed' },
  { fixture: 'binary', runtime: 'binary', blocks: 'nothing', exit: 'error', stdoutIsBody: true },
]
