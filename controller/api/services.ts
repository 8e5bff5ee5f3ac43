import type { Clock } from '#shared/clock.ts'
import type { Arch } from '#shared/schemas/names.ts'
import type { Catalogue } from '../catalogue/index.ts'
import type { EventHub } from '../events/index.ts'
import type { Bus, Enrolment, Fleet } from '../fleet/index.ts'
import type { Rollouts } from '../rollout/index.ts'
import type { Store } from '../store/index.ts'

/** What the routes serve. */
export interface ApiServices {
  readonly store: Store
  readonly catalogue: Catalogue
  readonly fleet: Fleet
  readonly rollouts: Rollouts
  readonly enrolment: Enrolment
  readonly bus: Bus
  readonly events: EventHub
  readonly clock: Clock
  /** Architecture to build for when neither the request nor the nodes say. */
  readonly hostArch: Arch
}

/** Given to each plugin. A function, so that the API can be described without anything behind it. */
export interface RouteOptions {
  readonly services: () => ApiServices
  /** Aborts when the server stops: streams end. */
  readonly stopping: AbortSignal
}
