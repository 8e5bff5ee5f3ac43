import { blocks } from './blocks.ts'

/** Memory from `blocks` that has an owner and is sent: given back when the owner is done with it and all of it has been sent. */
export class BlockLease {
  readonly #block: Buffer
  #sending = 0
  #done = false

  constructor(block: Buffer) {
    this.#block = block
  }

  /** It is to be sent. @returns to be called when it has been */
  send(): () => void {
    this.#sending += 1
    return () => {
      this.#sending -= 1
      this.#giveBack()
    }
  }

  /** The owner never looks at it again, nor sends it once more. Without this it is left to the garbage collector. */
  end(): void {
    this.#done = true
    this.#giveBack()
  }

  #giveBack(): void {
    if (this.#done && this.#sending === 0) blocks.give(this.#block)
  }
}
