import { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'

export const NDJSON = 'application/x-ndjson'

/** Aborts when the client has gone, the answer is complete, or the server stops. */
export function answerSignal(reply: FastifyReply, stopping: AbortSignal): AbortSignal {
  const closed = new AbortController()
  if (reply.raw.destroyed) closed.abort()
  else reply.raw.once('close', () => closed.abort())
  return AbortSignal.any([closed.signal, stopping])
}

/** Answers with one JSON text per line, each as it comes; headers leave at once. A slow reader slows the source. */
export function sendLines(reply: FastifyReply, values: AsyncIterable<unknown>): FastifyReply {
  const lines = async function* () {
    for await (const value of values) yield `${JSON.stringify(value)}\n`
  }
  reply.type(NDJSON).header('cache-control', 'no-store').header('x-accel-buffering', 'no')
  const body = Readable.from(lines(), { objectMode: false, highWaterMark: 64 * 1024 })
  reply.raw.once('pipe', () => reply.raw.flushHeaders())
  return reply.send(body)
}
