/** Time as an argument: production passes `systemClock`, tests and simulations pass their own. */
export interface Clock {
  /** Wall clock, milliseconds since 1970. */
  nowMs(): number
}

export const systemClock: Clock = { nowMs: () => Date.now() }
