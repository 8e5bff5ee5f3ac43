/**
 * HTTP in front of the functions: a request becomes an Invocation, a Result becomes the answer.
 * Depends on invoke/ (its types), sockets/, undici (llhttp's WebAssembly build and its constants) and node:net.
 * Used by main.ts.
 */
export { HttpProxy, type HttpProxyOptions } from './http-proxy.ts'
