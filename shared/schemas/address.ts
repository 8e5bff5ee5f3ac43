import { Type, type Static } from 'typebox'

/** In the controller's folder, beside the API token. */
export const ADDRESS_FILE = 'address.json'

/** Where a controller listens, or listened when it ran last. */
export const ControllerAddress = Type.Object({
  /** URL of its API, from this host. */
  api: Type.String({ pattern: '^https?://' }),
  /** NATS servers that it uses. */
  nats: Type.Array(Type.String()),
})
export type ControllerAddress = Static<typeof ControllerAddress>
