/**
 * Calls from one process of the agent to another: a worker has the fronts and a `RemoteInvoker`, the agent has the router and a
 * `CallPort` for each worker. They speak the frames of the runner protocol with the agent in the runner's place, over a socket
 * that both were born with. What differs from `runtimes/PROTOCOL.md`: there is no greeting; the first line of a REQUEST's head is
 * `<function> <method> <bytes of a body that is whole, or nothing>`; an ERROR holds a whole fault; NAMES (0x40) lists the functions.
 *
 * Depends on shared, invoke/frames, invoke/link, node:net.
 * Used by fronts/.
 */
export { CallPort } from './call-port.ts'
export { RemoteInvoker } from './remote-invoker.ts'
