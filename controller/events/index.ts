/**
 * What has changed, for whoever follows: the event stream, watches, and the loops that wait for news.
 * Depends on: shared.
 * Used by: catalogue, fleet, rollout, api, controller/main.ts.
 */
import type { ControllerEvent } from '#shared/schemas/api.ts'

export type EventListener = (event: ControllerEvent) => void

/** Hands each event to every listener at once; listeners only note it and return. Nothing is kept. */
export class EventHub {
  readonly #listeners = new Set<EventListener>()

  /** False when nobody listens: events that cost something need not be made. */
  get wanted(): boolean {
    return this.#listeners.size > 0
  }

  publish(event: ControllerEvent): void {
    for (const listener of this.#listeners) listener(event)
  }

  /** @returns ends the subscription */
  subscribe(listener: EventListener): () => void {
    this.#listeners.add(listener)
    return () => {
      this.#listeners.delete(listener)
    }
  }
}
