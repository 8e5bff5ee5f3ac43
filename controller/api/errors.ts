import type { FastifyError, FastifyInstance } from 'fastify'
import { Fault, FAULTS } from '#shared/fault.ts'
import type { ApiError } from '#shared/schemas/api.ts'

/** The one place where a failure becomes an HTTP answer; handlers just throw. */
export function answerFaults(app: FastifyInstance): void {
  app.setErrorHandler((error: FastifyError | Fault, request, reply) => {
    const fault = toFault(error)
    const { http, retry } = FAULTS[fault.code]
    if (fault.code === 'INTERNAL') {
      request.log.error({ err: error }, 'unexpected error') // Details stay in the log.
      return reply.code(500).send({ code: 'INTERNAL', message: 'internal error', retry })
    }
    request.log.debug({ code: fault.code, err: fault }, 'request refused')
    return reply.code(http).send(errorBody(fault))
  })
  app.setNotFoundHandler((request) => {
    throw new Fault('NOT_FOUND', `there is no ${request.method} ${request.url.split('?')[0] ?? ''}`)
  })
}

export function errorBody(fault: Fault): ApiError {
  const { code, message, details } = fault
  const { retry } = FAULTS[code]
  return Object.keys(details).length > 0
    ? { code, message, retry, details }
    : { code, message, retry }
}

/** Errors of the HTTP server itself have codes of fastify's; anything unknown is `INTERNAL`. */
function toFault(error: FastifyError | Fault): Fault {
  if (error instanceof Fault) return error
  const options = { cause: error }
  if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
    return new Fault('BODY_TOO_LARGE', 'the request body is too large', {}, options)
  }
  if (error.statusCode !== undefined && error.statusCode >= 400 && error.statusCode < 500) {
    return new Fault('REQUEST_INVALID', error.message, {}, options)
  }
  return Fault.from(error)
}
