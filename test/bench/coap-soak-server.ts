/** The server of coap-soak.ts: the CoAP front before an echo, forked; tells its port, then once a second how much memory it has. */
import type { Invoker } from '#agent/invoke/index.ts'
import { CoapProxy } from '#agent/proxy/coap/index.ts'
import { CapturedLog } from '#test/captured-log.ts'

const echo: Invoker = {
  match: (path) => (path === 'echo' ? { fn: 'echo', rest: '' } : undefined),
  names: () => ['echo'],
  invoke: async ({ body }) => ({ status: 200, headers: [], body }),
  start: ({ body }, _, resolve) => resolve({ status: 200, headers: [], body }),
  accept: async () => undefined,
}
const proxy = await CoapProxy.listen({
  host: '::',
  port: 0,
  invoker: echo,
  bodyBytesMax: 8 * 1024 * 1024,
  log: new CapturedLog(),
})
process.once('disconnect', () => process.exit(0))
process.send?.({ port: proxy.port })
setInterval(() => process.send?.({ ...process.memoryUsage(), ...proxy.stats }), 1_000)
