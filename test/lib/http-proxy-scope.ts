import assert from 'node:assert/strict'
import { HttpProxy, type HttpProxyOptions } from '#agent/proxy/http/index.ts'
import { CapturedLog } from './captured-log.ts'
import { TestInvoker } from './invoker.ts'

export interface HttpProxyScope extends AsyncDisposable {
  readonly invoker: TestInvoker
  readonly log: CapturedLog
  readonly proxy: HttpProxy
  url(path: string): string
}

/** An HTTP proxy on a free port, before functions of this process. Disposing fails when a call is left over. */
export async function httpProxyScope(
  options: Partial<HttpProxyOptions> = {},
): Promise<HttpProxyScope> {
  const invoker = new TestInvoker()
  const log = new CapturedLog()
  const proxy = await HttpProxy.listen({
    host: '::',
    port: 0,
    invoker,
    bodyBytesMax: 1024 * 1024,
    log,
    ...options,
  })
  return {
    invoker,
    log,
    proxy,
    url: (path) => `http://127.0.0.1:${proxy.port}${path}`,
    async [Symbol.asyncDispose]() {
      await proxy.close()
      assert.equal(proxy.inFlight, 0, 'calls are left over')
    },
  }
}
