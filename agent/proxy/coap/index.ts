/**
 * CoAP (RFC 7252, 7959) in front of the functions, with a message layer of its own: a request becomes an Invocation, a Result the response.
 * Depends on invoke/ (its types) and node:dgram.
 * Used by main.ts.
 */
export { CoapProxy, type CoapProxyOptions } from './coap-proxy.ts'
