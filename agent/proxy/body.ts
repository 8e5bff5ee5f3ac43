import type { Readable } from 'node:stream'
import { ChunkQueue, type Body } from '#agent/invoke/index.ts'
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
  // The budget counts bytes: how many pieces they come in is up to the function, and each piece costs more than a hundred.
  const queue = new ChunkQueue()
  let bytes = 0
  // Leaving the loop by an error destroys the stream, and that cancels the call.
  const stream: AsyncIterable<Buffer> = body
  for await (const chunk of stream) {
    bytes += chunk.length
    if (bytes > bytesMax) throw tooLarge(bytesMax)
    await gathering.hold(chunk.length)
    queue.push(chunk)
  }
  const first = queue.shift() ?? NO_BYTES
  if (first.length === bytes) return first
  const whole = Buffer.allocUnsafeSlow(bytes)
  let at = first.copy(whole)
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    at += next.copy(whole, at)
  }
  return whole
}

const NO_BYTES = Buffer.alloc(0)

function tooLarge(bytesMax: number): Fault {
  return new Fault(
    'FUNCTION_OUTPUT_TOO_LARGE',
    `the function's answer is larger than ${bytesMax} bytes`,
    {
      bytesMax,
    },
  )
}
