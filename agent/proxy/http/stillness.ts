import type { Fault } from '#shared/fault.ts'
import { noMemory } from './request-body.ts'

/** Tells that a peer has sent nothing of what it is waited for. */
export class Stillness {
  #bytes = 0
  #looks = 0

  /**
   * To be called now and then.
   *
   * @param wants - something is waited for
   * @param bytes - read in all
   * @param short - others wait for what is promised to this one
   * @returns why it has to give way: nothing has come for two looks
   */
  look(wants: boolean, bytes: number, short: boolean): Fault | undefined {
    this.#looks = wants && bytes === this.#bytes ? this.#looks + 1 : 0
    this.#bytes = bytes
    return this.#looks > 1 && short ? noMemory() : undefined
  }
}
