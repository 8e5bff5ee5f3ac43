import type { Protocol } from '../model.ts'

/** The names of all functions as a JSON array, agent to worker: first of all, and whenever they have changed. */
export const NAMES = 0x40

/** Body bytes that either side may send ahead, per call. */
export const WINDOW_BYTES = 262_144

const PROTOCOLS: ReadonlySet<string> = new Set<Protocol>(['http', 'coap', 'grpc', 'nats', 'async'])

export function isProtocol(text: string): text is Protocol {
  return PROTOCOLS.has(text)
}
