import { WheelEntry } from './wheel.ts'

/** Has something looked at when its time comes. */
export class Watch extends WheelEntry {
  readonly #look: () => void

  constructor(look: () => void) {
    super()
    this.#look = look
  }

  override expire(): void {
    this.#look()
  }
}
