import type { Readable } from 'node:stream'
import type { Body } from '#agent/invoke/index.ts'
import { bodyBudget, type BodyBudget } from '#agent/sockets/index.ts'
import { Fault } from '#shared/fault.ts'
import { Gathering } from './gathering.ts'

/**
 * A function's whole answer, for protocols and calls that cannot stream it.
 *
 * @throws Fault `FUNCTION_OUTPUT_TOO_LARGE` above `bytesMax`, and what the stream fails with.
 */
export function collectBody(
  body: Body,
  bytesMax: number,
  budget: BodyBudget = bodyBudget,
): Promise<Buffer> | Buffer {
  if (!Buffer.isBuffer(body)) return collectStream(body, bytesMax, budget)
  if (body.length > bytesMax) throw tooLarge(bytesMax)
  return body
}

async function collectStream(
  body: Readable,
  bytesMax: number,
  budget: BodyBudget,
): Promise<Buffer> {
  using gathering = new Gathering(body, budget)
  const chunks: Buffer[] = []
  let bytes = 0
  // Leaving the loop by an error destroys the stream, and that cancels the call.
  const stream: AsyncIterable<Buffer> = body
  for await (const chunk of stream) {
    bytes += chunk.length
    if (bytes > bytesMax) throw tooLarge(bytesMax)
    await gathering.hold(chunk.length)
    chunks.push(chunk)
  }
  return chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks, bytes)
}

function tooLarge(bytesMax: number): Fault {
  return new Fault(
    'FUNCTION_OUTPUT_TOO_LARGE',
    `the function's answer is larger than ${bytesMax} bytes`,
    {
      bytesMax,
    },
  )
}
