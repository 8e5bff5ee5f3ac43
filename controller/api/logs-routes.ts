import type { FastifyPluginCallbackTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { Fault } from '#shared/fault.ts'
import { NodeLogLine } from '#shared/schemas/api.ts'
import { NodeId } from '#shared/schemas/names.ts'
import { openLogs } from '../fleet/index.ts'
import { FunctionParams } from './functions-routes.ts'
import { answerSignal, NDJSON, sendLines } from './ndjson.ts'
import type { ApiServices, RouteOptions } from './services.ts'

const LogsQuery = Type.Object({
  tail: Type.Integer({ default: 100, minimum: 0, maximum: 10_000 }),
  follow: Type.Boolean({ default: false, description: '1: new lines follow as they come' }),
  node: Type.Optional(NodeId),
})

/** Log lines of a function, of one node or of all that have it. */
export const logsRoutes: FastifyPluginCallbackTypebox<RouteOptions> = (
  app,
  { services, stopping },
  done,
) => {
  app.get(
    '/v1/functions/:name/logs',
    {
      schema: {
        summary: 'Log lines, one JSON text per line',
        produces: [NDJSON],
        params: FunctionParams,
        querystring: LogsQuery,
        response: { 200: NodeLogLine },
      },
    },
    async ({ params: { name: fn }, query: { tail, follow, node } }, reply) => {
      const { bus } = services()
      const nodes = await nodesOf(services(), fn, node)
      const signal = answerSignal(reply, stopping)
      return sendLines(reply, await openLogs({ bus, fn, nodes, tail, follow }, signal))
    },
  )
  done()
}

async function nodesOf(
  { store, fleet, clock }: ApiServices,
  fn: string,
  wanted: string | undefined,
): Promise<string[]> {
  if ((await store.function(fn)) === undefined) {
    throw new Fault('FUNCTION_UNKNOWN', `there is no function ${fn}`, { fn })
  }
  if (wanted !== undefined) {
    await fleet.view(wanted)
    return [wanted]
  }
  const nowMs = clock.nowMs()
  const assigned = (await store.assignments({ fn })).map(({ node }) => node)
  const present = assigned.filter((node) => fleet.liveness.presence(node, nowMs) !== 'offline')
  if (present.length > 0) return present
  const why = assigned.length === 0 ? 'is on no node' : 'is on offline nodes only'
  throw new Fault('NODE_OFFLINE', `function ${fn} ${why}`, { fn })
}
