import { EXCHANGE_LIFETIME_MS } from './endpoint.ts'

const IDS = 65_536
/**
 * At once, and again spread over each lifetime: half of all ids within one. The other half may be taken, so none comes twice.
 */
const BURST = IDS / 4
const PER_MS = BURST / EXCHANGE_LIFETIME_MS

/** Message ids of our choice for one peer: none twice within EXCHANGE_LIFETIME (RFC 7252 section 4.4). */
export class MessageIds {
  #next = Math.floor(Math.random() * IDS)
  #left = BURST
  #countedMs: number | undefined

  get used(): boolean {
    return this.#countedMs !== undefined
  }

  /**
   * @param nowMs - Rising, from any start.
   * @param taken - Tells ids that we may have used already, by answering a request with its own.
   * @returns `undefined`: none is free now, ask again in a second
   */
  take(nowMs: number, taken: (id: number) => boolean): number | undefined {
    this.#left = Math.min(BURST, this.#left + (nowMs - (this.#countedMs ?? nowMs)) * PER_MS)
    this.#countedMs = nowMs
    if (this.#left < 1) return undefined
    for (let tries = 0; tries < IDS; tries++) {
      const id = this.#next
      this.#next = (id + 1) % IDS
      if (taken(id)) continue
      this.#left -= 1
      return id
    }
    return undefined
  }
}
