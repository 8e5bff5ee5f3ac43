/**
 * Every NATS subject, as a function. NATS is transport only: nothing here is the only place where a fact is kept.
 *
 * A function name may hold `/` and `.`; as one subject token it is base64url.
 */
export const subjects = {
  /** shoal.v1.node.<id>.command: request, controller to node */
  command: (node: string) => `shoal.v1.node.${node}.command`,
  /** shoal.v1.node.<id>.invoke: request, controller to node */
  invoke: (node: string) => `shoal.v1.node.${node}.invoke`,
  /** shoal.v1.node.<id>.logs: request, controller to node */
  logs: (node: string) => `shoal.v1.node.${node}.logs`,
  /** All requests to one node. */
  nodeAll: (node: string) => `shoal.v1.node.${node}.>`,
  /** shoal.v1.hello.<id>: request, node to controller */
  hello: (node: string) => `shoal.v1.hello.${node}`,
  helloAll: 'shoal.v1.hello.*',
  /** shoal.v1.health.<id>: heartbeat, node to controller */
  health: (node: string) => `shoal.v1.health.${node}`,
  healthAll: 'shoal.v1.health.*',
  /** shoal.v1.artifact.get: request, node to any controller (queue group) */
  artifact: 'shoal.v1.artifact.get',
  /** shoal.v1.log.<id>.<fn token>: live lines while somebody follows */
  log: (node: string, fn: string) => `shoal.v1.log.${node}.${functionToken(fn)}`,
  logNode: (node: string) => `shoal.v1.log.${node}.>`,
  /** Reply subjects of one node; each node may subscribe to no others. */
  inbox: (node: string) => `_INBOX_${node.replaceAll('-', '_')}`,
} as const

/** Queue group of all controllers. */
export const CONTROLLERS = 'shoal-controllers'

export function functionToken(fn: string): string {
  return Buffer.from(fn).toString('base64url')
}
