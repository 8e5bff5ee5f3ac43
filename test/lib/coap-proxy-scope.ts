import assert from 'node:assert/strict'
import { CoapProxy, type CoapProxyOptions } from '#agent/proxy/coap/index.ts'
import { CapturedLog } from './captured-log.ts'
import { TestInvoker } from './invoker.ts'
import { RawCoap } from './raw-coap.ts'

export interface CoapProxyScope extends AsyncDisposable {
  readonly invoker: TestInvoker
  readonly log: CapturedLog
  readonly proxy: CoapProxy
  /** A new client socket, that is: a new peer. */
  client(host?: string): Promise<RawCoap>
}

/** A CoAP proxy on a free port, before functions of this process. Disposing fails when a call is left over. */
export async function coapProxyScope(
  options: Partial<CoapProxyOptions> = {},
): Promise<CoapProxyScope> {
  const invoker = new TestInvoker()
  const log = new CapturedLog()
  const clients: RawCoap[] = []
  const proxy = await CoapProxy.listen({
    host: '::',
    port: 0,
    invoker,
    bodyBytesMax: 100_000,
    log,
    ...options,
  })
  return {
    invoker,
    log,
    proxy,
    async client(host = '127.0.0.1') {
      const client = await RawCoap.open(proxy.port, host)
      clients.push(client)
      return client
    },
    async [Symbol.asyncDispose]() {
      const { inFlightBytes } = proxy.stats
      await proxy.close()
      for (const client of clients) await client[Symbol.asyncDispose]()
      if (invoker.running === 0) assert.equal(inFlightBytes, 0, 'bytes are left over')
    },
  }
}
