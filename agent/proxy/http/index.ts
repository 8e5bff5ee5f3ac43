/**
 * HTTP in front of the functions: a request becomes an Invocation, a Result becomes the answer.
 *
 * Bytes go socket -> Connection -> RequestParser (llhttp) -> HttpCall -> invoke/, and back through Outlet. A front of its own
 * rather than fastify's or `node:http`'s server, because the front is what a call costs: `node test/bench/front.ts --only http`
 * and `front-path.ts` compare them. What it may not do by itself is parse: llhttp decides what a request is.
 *
 * Depends on invoke/ (its types), sockets/, undici (llhttp's WebAssembly build and its constants) and node:net.
 * Used by agent.ts.
 */
export { HttpProxy, type HttpProxyOptions } from './http-proxy.ts'
