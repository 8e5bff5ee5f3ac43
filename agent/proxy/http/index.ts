/**
 * HTTP in front of the functions: a request becomes an Invocation, a Result becomes the answer.
 * Depends on invoke/ (its types) and fastify, node:http.
 * Used by main.ts.
 */
export { HttpProxy, type HttpProxyOptions } from './http-proxy.ts'
