import { LOG_KEYS } from '#shared/log-keys.ts'
import { timeLimit } from '#shared/time-limit.ts'
import type { HandlerState } from '#agent/handlers/index.ts'
import type { Workshop } from './apply.ts'
import type { Held } from './held.ts'

const STOP_MS = 10_000

/** Nothing that the next agent could take over. */
const OVER: ReadonlySet<HandlerState['kind']> = new Set([
  'failed',
  'draining',
  'drained',
  'pausing',
  'resuming',
])

/**
 * Lets a handler's calls end, then leaves it to the next agent, or removes it: when told to, when it was never ready, or when
 * it would not be taken over anyway (of the release before, or there for one call). Never rejects.
 */
export async function endHandler(shop: Workshop, held: Held, remove: boolean): Promise<void> {
  const { handler, lane, proven } = held
  const { drainMs, functions, slots, log } = shop
  const { fresh, fn, specDigest } = handler.record
  const { kind } = handler.state
  const isOld = kind === 'paused' && specDigest !== functions.get(fn)?.spec
  const isSound = !OVER.has(kind) && fresh !== true && !isOld
  const keep = !remove && isSound && (proven || handler.wasReady)
  try {
    if (kind === 'serving' && lane !== undefined) await handler.drain(lane, drainMs)
    if (keep) await handler.leave()
    else await slots.stop.run(() => handler.stop(timeLimit(drainMs + 5_000)))
  } catch (error) {
    log.warn({ [LOG_KEYS.handler]: handler.id, [LOG_KEYS.err]: error }, 'handler not removed')
  }
}

/** Removes whatever else the engine and the disk have of this installation: spares of an agent that was killed, above all. Never rejects. */
export async function removeRest({ engine, folders, slots, log }: Workshop): Promise<void> {
  const remove = async (id: string): Promise<void> => {
    try {
      await engine.stop(id, 0, timeLimit(STOP_MS))
      await folders.remove(id)
    } catch (error) {
      log.warn({ [LOG_KEYS.handler]: id, [LOG_KEYS.err]: error }, 'handler not removed')
    }
  }
  try {
    const there = await engine.list(timeLimit(STOP_MS))
    const ids = new Set([...there.map(({ id }) => id), ...folders.read().ids])
    await Promise.all([...ids].map((id) => slots.stop.run(() => remove(id))))
  } catch (error) {
    log.warn({ [LOG_KEYS.err]: error }, 'cannot tell whether handlers are left')
  }
}
