import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { reapAtExit } from './reaper.ts'

/** What the callers do. */
export interface CallerLoad {
  readonly url: string
  readonly durationMs: number
  /** So many calls begin each second, whatever becomes of them. */
  readonly perSecond?: number
  /** In place of `perSecond`: each again as soon as it was answered. */
  readonly connections?: number
  readonly headers?: Readonly<Record<string, string>>
}

export interface CallRecord {
  /** 0: no answer came. */
  readonly status: number
  readonly tookMs: number
  readonly retryAfter?: string
}

const CHILD = fileURLToPath(new URL('caller-load-child.ts', import.meta.url))

/** Callers by HTTP in a process of their own. Resolves to what became of each call, in the order of their ends. */
export async function callerLoad(load: CallerLoad): Promise<readonly CallRecord[]> {
  const child = fork(CHILD, [JSON.stringify(load)], { stdio: 'inherit' })
  reapAtExit(child)
  const exited = once(child, 'exit')
  const records = await Promise.race([
    once(child, 'message').then(([message]): CallRecord[] => message),
    exited.then(([code]) => {
      throw new Error(`the callers ended with ${String(code)}`)
    }),
  ])
  await exited
  return records
}
