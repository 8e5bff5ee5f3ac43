import { randomInt } from 'node:crypto'
import type { FastifyPluginCallbackTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Fault } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import type { InvokeHead } from '#shared/schemas/wire.ts'
import { invokeThrough, type InvokeAnswer } from '../fleet/index.ts'
import { FunctionParams } from './functions-routes.ts'
import { answerSignal } from './ndjson.ts'
import type { ApiServices, RouteOptions } from './services.ts'

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const
/** Of this connection, not of the call; and the bearer token is for the controller only. */
const NOT_FORWARDED = new Set([
  'authorization',
  'connection',
  'content-length',
  'expect',
  'host',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])

/** Calls of functions through a node. */
export const invokeRoutes: FastifyPluginCallbackTypebox<RouteOptions> = (
  app,
  { services, stopping },
  done,
) => {
  // Any content type is the function's business.
  app.removeAllContentTypeParsers()
  app.addContentTypeParser(
    '*',
    { parseAs: 'buffer', bodyLimit: LIMITS.natsBodyBytesMax },
    (_request, body, parsed) => parsed(null, body),
  )
  const schema = {
    summary: 'Call a function through a node',
    description:
      'The query parameter `node` (the last one of that name) chooses the node and is not passed on; otherwise any online node that serves the function is taken. The answer is the function’s, with the header shoal-node.',
    params: FunctionParams,
  }
  for (const url of ['/v1/functions/:name/invoke', '/v1/functions/:name/invoke/*']) {
    app.route({
      method: [...METHODS],
      url,
      bodyLimit: LIMITS.natsBodyBytesMax,
      schema: { ...schema, hide: url.endsWith('*') },
      handler: async (request: FastifyRequest<{ Params: { name: string } }>, reply) => {
        const fn = request.params.name
        const { path, query, wanted } = splitUrl(request.raw.url ?? '')
        const { node, timeoutMs } = await chooseNode(services(), fn, wanted)
        const head: InvokeHead = {
          fn,
          method: request.method,
          path,
          query,
          headers: forwardedHeaders(request.raw.rawHeaders),
          deadlineMs: Math.min(timeoutMs, askedDeadlineMs(request)),
        }
        const body = request.body instanceof Uint8Array ? request.body : new Uint8Array()
        const signal = answerSignal(reply, stopping)
        const answer = await invokeThrough(services().bus, node, head, body, signal)
        return answerWith(reply, node, answer)
      },
    })
  }
  done()
}

/** Path rest and query as they came, still percent-encoded, and the node that was asked for. */
export function splitUrl(url: string): { path: string; query: string; wanted?: string } {
  const mark = url.indexOf('?')
  const whole = mark === -1 ? url : url.slice(0, mark)
  const rest = /^\/v1\/functions\/[^/]+\/invoke(\/.*)?$/.exec(whole)?.[1] ?? ''
  const pairs = mark === -1 ? [] : url.slice(mark + 1).split('&')
  const at = pairs.findLastIndex((pair) => pair.startsWith('node='))
  const [wanted] = at === -1 ? [] : pairs.splice(at, 1)
  return {
    path: rest === '/' ? '' : rest,
    query: pairs.join('&'),
    ...(wanted === undefined ? {} : { wanted: wanted.slice('node='.length) }),
  }
}

async function chooseNode(
  { store, fleet, clock, bus }: ApiServices,
  fn: string,
  wanted: string | undefined,
): Promise<{ node: string; timeoutMs: number }> {
  if ((await store.function(fn)) === undefined) {
    throw new Fault('FUNCTION_UNKNOWN', `there is no function ${fn}`, { fn })
  }
  const assigned = await store.assignments({ fn })
  if (wanted !== undefined) {
    await fleet.view(wanted)
    const here = assigned.find(({ node }) => node === wanted)
    if (here !== undefined) return { node: wanted, timeoutMs: here.settings.timeoutMs }
    throw new Fault('FUNCTION_UNKNOWN', `${fn} is not assigned to node ${wanted}`, {
      fn,
      node: wanted,
    })
  }
  if (!bus.connected) {
    throw new Fault('NODE_OFFLINE', 'no connection to NATS: is nats-server running?', { fn })
  }
  const nowMs = clock.nowMs()
  const present = assigned.filter(({ node }) => fleet.liveness.presence(node, nowMs) !== 'offline')
  const serving = present.filter(({ node }) => {
    const reports = fleet.liveness.get(node)?.heartbeat?.functions ?? []
    return reports.some((report) => report.fn === fn && report.serving.length > 0)
  })
  // A node that has not said so yet may serve all the same: it knows best.
  const candidates = serving.length > 0 ? serving : present
  if (candidates.length === 0) {
    const why = assigned.length === 0 ? 'is on no node yet' : 'is on offline nodes only'
    throw new Fault('NODE_OFFLINE', `function ${fn} ${why}`, { fn })
  }
  const chosen = candidates[randomInt(candidates.length)]
  if (chosen === undefined) throw new RangeError('a candidate')
  return { node: chosen.node, timeoutMs: chosen.settings.timeoutMs }
}

/** What the caller allows, by the same header as at the node. */
function askedDeadlineMs({ headers }: FastifyRequest): number {
  const value = headers['x-shoal-deadline-ms']
  if (value === undefined) return Infinity
  if (typeof value === 'string' && /^[1-9]\d{0,9}$/.test(value)) return Number(value)
  throw new Fault('REQUEST_INVALID', 'x-shoal-deadline-ms is a number of milliseconds above 0', {
    field: 'x-shoal-deadline-ms',
  })
}

function forwardedHeaders(raw: readonly string[]): [string, string][] {
  const headers: [string, string][] = []
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = (raw[i] ?? '').toLowerCase()
    if (!NOT_FORWARDED.has(name)) headers.push([name, raw[i + 1] ?? ''])
  }
  return headers
}

function answerWith(reply: FastifyReply, node: string, answer: InvokeAnswer): FastifyReply {
  const { status, headers, body } = answer
  if (status < 200 || status > 599) {
    throw new Fault('FUNCTION_BAD_ANSWER', `the function answered status ${status}`, { node })
  }
  const values = new Map<string, string[]>()
  for (const [name, value] of headers) {
    const key = name.toLowerCase()
    if (!NOT_FORWARDED.has(key)) values.set(key, [...(values.get(key) ?? []), value])
  }
  try {
    for (const [name, list] of values) {
      void reply.header(name, name === 'set-cookie' ? list : list.join(', '))
    }
  } catch (cause) {
    throw new Fault('FUNCTION_BAD_ANSWER', 'a header of the answer is invalid', { node }, { cause })
  }
  return reply.code(status).header('shoal-node', node).send(Buffer.from(body))
}
