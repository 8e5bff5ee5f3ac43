/** Bytes that may be promised at one moment. */
export class ByteBudget {
  #left: number

  constructor(bytesMax: number) {
    this.#left = bytesMax
  }

  /** False when there are not so many left. */
  take(bytes: number): boolean {
    if (bytes > this.#left) return false
    this.#left -= bytes
    return true
  }

  give(bytes: number): void {
    this.#left += bytes
  }
}
