import type { FastifyPluginCallbackTypebox } from '@fastify/type-provider-typebox'
import type { Registry } from 'prom-client'
import { Type } from 'typebox'
import { withNamedSchemas } from './named-schemas.ts'
import type { RouteOptions } from './services.ts'

const Readiness = Type.Object({ ready: Type.Boolean(), problems: Type.Array(Type.String()) })

/** Health, metrics, and the description of the API itself. */
export const systemRoutes: FastifyPluginCallbackTypebox<
  RouteOptions & { readonly metrics: Registry }
> = (app, { services, metrics, stopping }, done) => {
  app.get(
    '/healthz',
    {
      config: { open: true },
      schema: {
        summary: 'The process lives',
        security: [],
        response: { 200: Type.Object({ alive: Type.Boolean() }) },
      },
    },
    async () => ({ alive: true }),
  )
  app.get(
    '/readyz',
    {
      config: { open: true },
      schema: {
        summary: 'Deployments and calls can reach nodes',
        security: [],
        response: { 200: Readiness, 503: Readiness },
      },
    },
    async (_request, reply) => {
      const problems: string[] = []
      if (stopping.aborted) problems.push('the controller is stopping')
      if (!services().bus.connected) problems.push('no connection to NATS')
      const storeProblem = await services()
        .store.setting('readiness')
        .then(
          () => undefined,
          () => 'the database cannot be read',
        )
      if (storeProblem !== undefined) problems.push(storeProblem)
      const ready = problems.length === 0
      return reply.code(ready ? 200 : 503).send({ ready, problems })
    },
  )
  app.get(
    '/metrics',
    { schema: { summary: 'Prometheus metrics', produces: [metrics.contentType] } },
    async (_request, reply) => reply.type(metrics.contentType).send(await metrics.metrics()),
  )
  app.get('/openapi.json', { schema: { summary: 'This description' } }, async () =>
    withNamedSchemas(app.swagger()),
  )
  done()
}
