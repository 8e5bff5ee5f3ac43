/**
 * The nodes: enrolment, labels and selectors, who is there, each node's signed command and its way to the node.
 * Depends on: store, events, shared; NATS behind `Bus`, a `CommandSigner` and an `ArtifactReader` are handed in.
 * Used by: rollout, api, controller/main.ts.
 */
export { ArtifactServer } from './artifact-server.ts'
export type { Bus, BusMessage, BusRequest, RequestOptions } from './bus.ts'
export type { CommandSigner } from './commands.ts'
export { Enrolment } from './enrolment.ts'
export type { EnrolmentOptions } from './enrolment.ts'
export { Fleet } from './fleet.ts'
export type { FleetOptions } from './fleet.ts'
export { Liveness, TICK_MS } from './liveness.ts'
export { openLogs } from './log-follow.ts'
export { NatsBus } from './nats-bus.ts'
export { invokeThrough, requestLogs } from './node-calls.ts'
export type { InvokeAnswer } from './node-calls.ts'
export type { NodeFacts } from './node-view.ts'
export { applyPlacements, archFits, roomFault, selectNodes, withPlacement } from './placement.ts'
export type { Placed, Unplaced } from './placement.ts'
export { matches, parseSelector } from './selector.ts'
export type { Selectable, Selector, SelectorTerm } from './selector.ts'
