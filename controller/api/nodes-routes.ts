import type { FastifyPluginCallbackTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { NewToken, NodeView } from '#shared/schemas/api.ts'
import { NodeId } from '#shared/schemas/names.ts'
import { JoinReply, JoinRequest } from '#shared/schemas/wire.ts'
import { answerSignal } from './ndjson.ts'
import type { RouteOptions } from './services.ts'

const NodeParams = Type.Object({ id: NodeId })
/** How long a node that is there gets to stop its functions before it is taken out. */
const DELETE_WAIT_MS = 10_000

/** Nodes, join tokens, and joining. */
export const nodesRoutes: FastifyPluginCallbackTypebox<RouteOptions> = (
  app,
  { services, stopping },
  done,
) => {
  app.get(
    '/v1/nodes',
    { schema: { summary: 'All nodes', response: { 200: Type.Array(NodeView) } } },
    () => services().fleet.views(),
  )
  app.get(
    '/v1/nodes/:id',
    { schema: { summary: 'One node', params: NodeParams, response: { 200: NodeView } } },
    ({ params }) => services().fleet.view(params.id),
  )
  app.delete(
    '/v1/nodes/:id',
    {
      schema: {
        summary: 'Take a node out; when it is there it is told to run nothing',
        params: NodeParams,
        response: { 204: Type.Null() },
      },
    },
    async ({ params }, reply) => {
      await services().fleet.delete(params.id, DELETE_WAIT_MS, answerSignal(reply, stopping))
      return reply.code(204).send(null)
    },
  )
  app.post(
    '/v1/tokens',
    {
      schema: {
        summary: 'Make a join token; it is shown this once',
        body: Type.Optional(
          Type.Object(
            {
              ttlMs: Type.Optional(Type.Integer({ minimum: 1_000, maximum: 2_592_000_000 })),
              uses: Type.Optional(Type.Integer({ minimum: 1, maximum: 100_000 })),
            },
            { additionalProperties: false },
          ),
        ),
        response: { 200: NewToken },
      },
    },
    ({ body }) => services().enrolment.createToken(body ?? {}),
  )
  app.post(
    '/v1/join',
    {
      config: { open: true },
      bodyLimit: 64 * 1024,
      schema: {
        summary: "Enrol a node; wants a join token's secret in place of the bearer token",
        security: [],
        body: JoinRequest,
        response: { 200: JoinReply },
      },
    },
    ({ body }) => services().enrolment.join(body),
  )
  done()
}
