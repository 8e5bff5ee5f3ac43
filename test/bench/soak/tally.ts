/** What a call came back with, whatever the protocol. */
export interface Answer {
  /** `ok`, or the protocol's own word for the failure, e.g. `502 FUNCTION_EXITED`. */
  readonly code: string
  readonly body: Buffer
}

export interface Counts {
  /** By protocol and function, e.g. `http echo-node`. */
  readonly right: Readonly<Record<string, number>>
  /** Faults that the function is there to make, by what was said. */
  readonly faults: Readonly<Record<string, number>>
  readonly unexpected: number
  /** The first of them, as text. */
  readonly samples: readonly string[]
}

const SAMPLES_MAX = 20
const SHOWN_MAX = 200

/** Counts answers: right, the defined fault of a function that crashes, or neither. */
export class Tally {
  readonly #right = new Map<string, number>()
  readonly #faults = new Map<string, number>()
  readonly #samples: string[] = []
  #unexpected = 0
  #total = 0

  get total(): number {
    return this.#total
  }

  get counts(): Counts {
    return {
      right: byName(this.#right),
      faults: byName(this.#faults),
      unexpected: this.#unexpected,
      samples: this.#samples,
    }
  }

  right(what: string): void {
    this.#total += 1
    this.#right.set(what, (this.#right.get(what) ?? 0) + 1)
  }

  fault(what: string): void {
    this.#total += 1
    this.#faults.set(what, (this.#faults.get(what) ?? 0) + 1)
  }

  /** Neither right nor defined. @param seen - the answer, or what was thrown when none came */
  unexpected(what: string, seen: unknown): void {
    this.#total += 1
    this.#unexpected += 1
    if (this.#samples.length >= SAMPLES_MAX) return
    const text = isAnswer(seen) ? `${seen.code}: ${seen.body.toString('latin1')}` : String(seen)
    this.#samples.push(`${new Date().toISOString()} ${what}: ${text.slice(0, SHOWN_MAX)}`)
  }
}

function isAnswer(seen: unknown): seen is Answer {
  return (
    typeof seen === 'object' &&
    seen !== null &&
    'code' in seen &&
    'body' in seen &&
    Buffer.isBuffer(seen.body)
  )
}

function byName(counts: ReadonlyMap<string, number>): Record<string, number> {
  return Object.fromEntries([...counts].toSorted(([a], [b]) => a.localeCompare(b)))
}
