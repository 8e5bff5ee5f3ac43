/** Tells that a peer has sent nothing of what it is waited for. */
export class Stillness {
  #bytes = 0
  #looks = 0

  /**
   * To be called now and then.
   *
   * @param wants - something is waited for
   * @param bytes - read in all
   * @returns nothing has come for two looks
   */
  look(wants: boolean, bytes: number): boolean {
    this.#looks = wants && bytes === this.#bytes ? this.#looks + 1 : 0
    this.#bytes = bytes
    return this.#looks > 1
  }
}
