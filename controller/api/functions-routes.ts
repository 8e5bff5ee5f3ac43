import type { FastifyPluginCallbackTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { Fault } from '#shared/fault.ts'
import { AssignmentView, FunctionView, Removal } from '#shared/schemas/api.ts'
import { FunctionName } from '#shared/schemas/names.ts'
import type { FunctionRow } from '../store/index.ts'
import { answerSignal } from './ndjson.ts'
import type { ApiServices, RouteOptions } from './services.ts'

export const FunctionParams = Type.Object({ name: FunctionName })
const WaitQuery = Type.Object({
  waitMs: Type.Integer({
    default: 15_000,
    minimum: 0,
    maximum: 120_000,
    description: 'How long to wait for online nodes to confirm',
  }),
})

/** Functions: list, show, delete, wipe; and what is assigned where. */
export const functionsRoutes: FastifyPluginCallbackTypebox<RouteOptions> = (
  app,
  { services, stopping },
  done,
) => {
  app.get(
    '/v1/functions',
    { schema: { summary: 'All functions', response: { 200: Type.Array(FunctionView) } } },
    async () => {
      const rows = await services().store.functions()
      const views = await Promise.all(rows.map((row) => viewOf(services(), row)))
      return views.filter((view) => view !== undefined)
    },
  )
  app.get(
    '/v1/functions/:name',
    {
      schema: { summary: 'One function', params: FunctionParams, response: { 200: FunctionView } },
    },
    async ({ params: { name } }) => {
      const row = await services().store.function(name)
      const view = row === undefined ? undefined : await viewOf(services(), row)
      if (view !== undefined) return view
      throw new Fault('FUNCTION_UNKNOWN', `there is no function ${name}`, { fn: name })
    },
  )
  app.delete(
    '/v1/functions/:name',
    {
      schema: {
        summary: 'Remove a function everywhere; answers when online nodes have confirmed',
        params: FunctionParams,
        querystring: WaitQuery,
        response: { 200: Removal },
      },
    },
    ({ params, query }, reply) =>
      services().rollouts.removeFunctions(
        [params.name],
        query.waitMs,
        answerSignal(reply, stopping),
      ),
  )
  app.post(
    '/v1/wipe',
    {
      schema: {
        summary: 'Remove all functions everywhere',
        querystring: WaitQuery,
        response: { 200: Removal },
      },
    },
    ({ query }, reply) =>
      services().rollouts.removeFunctions(undefined, query.waitMs, answerSignal(reply, stopping)),
  )
  app.get(
    '/v1/assignments',
    { schema: { summary: 'What runs where', response: { 200: Type.Array(AssignmentView) } } },
    async () => {
      const rows = await services().store.assignments()
      return rows.map(({ fn, node, release, settings }) => ({
        function: fn,
        node,
        release,
        settings,
      }))
    },
  )
  done()
}

async function viewOf(
  { store, fleet, clock }: ApiServices,
  { name, settings, placements }: FunctionRow,
): Promise<FunctionView | undefined> {
  const releases = await store.releases(name)
  const [newest] = releases
  // Deleted between two reads.
  if (newest === undefined) return undefined
  const nowMs = clock.nowMs()
  const nodes: FunctionView['nodes'] = []
  for (const { node, release } of await store.assignments({ fn: name })) {
    const reports = fleet.liveness.get(node)?.heartbeat?.functions
    const report = reports?.find((one) => one.fn === name && one.release === release)
    const offline = fleet.liveness.presence(node, nowMs) === 'offline'
    nodes.push({
      node,
      release,
      state: offline ? 'offline' : (report?.state ?? 'unknown'),
      ...(offline || report?.reason === undefined ? {} : { reason: report.reason }),
    })
  }
  return {
    name,
    latestRelease: newest.id,
    ...(settings === undefined ? {} : { settings }),
    placements: [...placements],
    releases,
    nodes,
  }
}
