import { randomBytes } from 'node:crypto'
import { Pool } from 'undici'

/** What so many callers at once were told. */
export interface BodyRound {
  /** The answer was the body that had been sent. */
  readonly right: number
  /** With a fault that says "try again": 429, 502, 503. */
  readonly refused: Readonly<Record<string, number>>
  /** Anything else: another body, a connection that broke. */
  readonly wrong: readonly string[]
}

export interface ManyBodiesOptions {
  readonly port: number
  readonly path: string
  readonly connections: number
  readonly bytes: number
  readonly durationMs: number
}

/** Callers that each send a body of their own to an echo, again and again, and look at every answer. */
export async function manyBodies(options: ManyBodiesOptions): Promise<BodyRound> {
  const { port, path, connections, bytes, durationMs } = options
  await using pool = disposable(
    new Pool(`http://127.0.0.1:${port}`, { connections, headersTimeout: 60_000 }),
  )
  const endsAtMs = performance.now() + durationMs
  const source = randomBytes(bytes + connections)
  const refused: Record<string, number> = {}
  const wrong: string[] = []
  let right = 0
  const call = async (n: number): Promise<void> => {
    const body = source.subarray(n, n + bytes)
    const answer = await pool.value.request({ path, method: 'POST', body })
    const got = Buffer.from(await answer.body.arrayBuffer())
    if (answer.statusCode === 200 && got.equals(body)) right += 1
    else if ([429, 502, 503].includes(answer.statusCode)) {
      refused[answer.statusCode] = (refused[answer.statusCode] ?? 0) + 1
    } else wrong.push(`${answer.statusCode} with ${got.length} bytes`)
  }
  const caller = async (n: number): Promise<void> => {
    while (performance.now() < endsAtMs) {
      await call(n).catch((error: unknown) => wrong.push(String(error)))
    }
  }
  await Promise.all(Array.from({ length: connections }, (_, n) => caller(n)))
  return { right, refused, wrong: wrong.slice(0, 20) }
}

function disposable(value: Pool): AsyncDisposable & { readonly value: Pool } {
  return { value, [Symbol.asyncDispose]: () => value.destroy() }
}
