import type { FastifyPluginCallbackTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { Rollout } from '#shared/schemas/api.ts'
import { FunctionSettings } from '#shared/schemas/command.ts'
import { FunctionName, ReleaseId } from '#shared/schemas/names.ts'
import { answerSignal, NDJSON, sendLines } from './ndjson.ts'
import type { RouteOptions } from './services.ts'

const RolloutParams = Type.Object({ id: Type.String({ maxLength: 64 }) })
const NewRollout = Type.Object(
  {
    function: FunctionName,
    release: Type.Optional(ReleaseId),
    selector: Type.Optional(
      Type.String({
        maxLength: 4_096,
        description: '`*`, or a comma list of key=value, key!=value, node ids; default `*`',
      }),
    ),
    settings: Type.Optional(
      Type.Partial(FunctionSettings, {
        additionalProperties: false,
        description: "What is not given is inherited from the function's last rollout",
      }),
    ),
    deadlineMs: Type.Optional(Type.Integer({ minimum: 1_000, maximum: 86_400_000 })),
  },
  { additionalProperties: false },
)

/** Rollouts: start, list, show, watch, abort. */
export const rolloutsRoutes: FastifyPluginCallbackTypebox<RouteOptions> = (
  app,
  { services, stopping },
  done,
) => {
  app.post(
    '/v1/rollouts',
    {
      schema: {
        summary: 'Assign a release to all selected nodes and follow it from there',
        description:
          'An open rollout of the same function is aborted. When the rollout is done, its selector becomes a placement of the function: a node that joins later and matches it gets the same release and settings. It takes the place of earlier ones with the same selector, or of all when it selects every node. When it fails, nodes that are not ready go back to the release that they had.',
        body: NewRollout,
        response: { 202: Rollout },
      },
    },
    async ({ body }, reply) => {
      const { function: fn, ...rest } = body
      return reply.code(202).send(await services().rollouts.create({ fn, ...rest }))
    },
  )
  app.get(
    '/v1/rollouts',
    {
      schema: {
        summary: 'Rollouts, newest first',
        querystring: Type.Object({ function: Type.Optional(FunctionName) }),
        response: { 200: Type.Array(Rollout) },
      },
    },
    ({ query }) => services().rollouts.list(query.function),
  )
  app.get(
    '/v1/rollouts/:id',
    { schema: { summary: 'One rollout', params: RolloutParams, response: { 200: Rollout } } },
    ({ params }) => services().rollouts.get(params.id),
  )
  app.get(
    '/v1/rollouts/:id/watch',
    {
      schema: {
        summary: 'Follow a rollout: a snapshot per line until it is no longer rolling',
        produces: [NDJSON],
        params: RolloutParams,
        response: { 200: Rollout },
      },
    },
    async ({ params }, reply) => {
      const { rollouts } = services()
      await rollouts.get(params.id)
      return sendLines(reply, rollouts.watch(params.id, answerSignal(reply, stopping)))
    },
  )
  app.post(
    '/v1/rollouts/:id/abort',
    {
      schema: { summary: 'End a rollout now', params: RolloutParams, response: { 200: Rollout } },
    },
    ({ params }) => services().rollouts.abort(params.id),
  )
  done()
}
