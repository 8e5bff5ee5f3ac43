import { setTimeout as sleep } from 'node:timers/promises'
import { machineTicks } from '#deploy/starvation.ts'

const LOOK_MS = 100
/** Of the processor time, while nobody is loaded; what the host gives to other guests is not to be waited for. */
const IDLE_SHARE = 0.8
const REST_MS_MAX = 3_000

/**
 * Waits until the machine rests, three seconds at most: a server may go on for a while when its load has ended (`coap` collects the
 * replies that it keeps), and the next contestant would pay for it.
 */
export async function rest(): Promise<void> {
  const until = performance.now() + REST_MS_MAX
  let before = machineTicks()
  while (performance.now() < until) {
    await sleep(LOOK_MS)
    const now = machineTicks()
    const quiet = now.idle - before.idle + now.stolen - before.stolen
    if (quiet >= IDLE_SHARE * (now.all - before.all)) return
    before = now
  }
}
