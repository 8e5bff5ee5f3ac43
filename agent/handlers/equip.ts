import type { RunnerLink } from '#agent/invoke/index.ts'
import { Fault } from '#shared/fault.ts'
import { timeLimit } from '#shared/time-limit.ts'
import type { Engine, HandlerLimits } from './engine.ts'
import { specOf, type HandlerFolders, type HandlerRecord } from './handler-record.ts'
import { allEnded } from './within.ts'

/** Where a handler lives. */
export interface Place {
  readonly engine: Engine
  readonly folders: HandlerFolders
  readonly record: HandlerRecord
}

/**
 * Gives a running handler that has no function yet all that it must have before INIT: its record, its code, its limits. May be
 * done again.
 *
 * @param limits - what it is limited to now; undefined: nobody knows
 * @throws Fault `STORAGE`, and those of `Engine.update`
 */
export async function equip(
  { engine, folders, record }: Place,
  limits: HandlerLimits | undefined,
  signal: AbortSignal,
): Promise<void> {
  const same = JSON.stringify(limits) === JSON.stringify(record.limits)
  await allEnded([
    folders.write(record),
    folders.place(record),
    ...(same ? [] : [engine.update(record.id, record.limits, signal)]),
  ])
}

/**
 * Has the runner load the function, or wait for it to have done so.
 *
 * @throws Fault `FUNCTION_LOAD`, `HANDLER_START`; the signal's reason
 */
export async function load(
  link: RunnerLink,
  { engine, folders, record }: Place,
  limitMs: number,
  signal: AbortSignal,
): Promise<void> {
  const { fn, release, entry, env, concurrency, timeoutMs } = record
  const limit = timeLimit(limitMs)
  const both = AbortSignal.any([signal, limit])
  const { hello } = link
  try {
    if (hello.state === 'empty') {
      const dir = engine.codeDirInside(specOf(record, folders.root))
      const common = { fn, release, dir, env, concurrency, timeoutMs }
      await link.init(entry === undefined ? common : { ...common, entry }, both)
    } else if (hello.fn !== fn || hello.release !== release) {
      throw new Fault('HANDLER_START', `its runner has loaded ${hello.fn} ${hello.release}`)
    } else {
      await link.ready(both)
    }
  } catch (error) {
    if (signal.aborted || !limit.aborted) throw error
    const message = `${fn} ${release} did not load within ${limitMs} ms`
    throw new Fault('FUNCTION_LOAD', message, {}, { cause: error })
  }
}
