import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, connect } from 'node:net'
import type { Socket } from 'node:net'
import { Readable } from 'node:stream'
import { describe, it } from 'node:test'
import { CallPort, RemoteInvoker } from '#agent/invoke/hop/index.ts'
import type { Invoker, Result } from '#agent/invoke/index.ts'
import { Fault } from '#shared/fault.ts'
import { invocation } from '#test/invoke-scope.ts'

/** Each of its bytes is no UTF-8: a head of a frame as it came, three times as long when it is written once more. */
const DECODED = Buffer.alloc(21_845, 0xff).toString()

/** A worker and the agent, between them a socket; what the agent answers is up to `answers`. */
class HopScope implements AsyncDisposable {
  readonly worker: RemoteInvoker
  readonly lost: string[] = []
  readonly #close: () => Promise<void>

  private constructor(worker: RemoteInvoker, close: () => Promise<void>) {
    this.worker = worker
    this.#close = close
  }

  static async open(answers: (fn: string) => Result | undefined): Promise<HopScope> {
    const router: Invoker = {
      match: () => undefined,
      names: () => [],
      invoke: () => Promise.reject(new Error('not here')),
      accept: () => Promise.resolve(),
      start: ({ fn }, _, resolve) => {
        const answer = answers(fn)
        if (answer !== undefined) resolve(answer)
      },
    }
    // Both ends take over their socket's handle: what lies between them is what can be closed.
    const between: Socket[] = []
    const server = createServer((socket) => {
      between.push(socket)
      const [first, second] = between
      if (second !== undefined) first?.pipe(second).pipe(first)
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    assert(address !== null && typeof address === 'object')
    const { port } = address
    const [ours, theirs] = [connect(port, '127.0.0.1').pause(), connect(port, '127.0.0.1').pause()]
    await Promise.all([once(ours, 'connect'), once(theirs, 'connect')])
    const scope = new HopScope(new RemoteInvoker(theirs), async () => {
      server.close()
      for (const socket of between) socket.destroy()
      await once(server, 'close')
    })
    const error = (_: object, message: string): void => void scope.lost.push(message)
    new CallPort(ours, router, { error }).onEnd = (reason) => scope.lost.push(reason)
    scope.worker.onLost = () => scope.lost.push('the agent')
    return scope
  }

  async outcome(fn: string): Promise<string> {
    try {
      const { status } = await this.worker.invoke(invocation({ fn }))
      return String(status)
    } catch (error) {
      return Fault.from(error).code
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close()
  }
}

describe('an answer on its way to a worker', () => {
  for (const kind of ['whole', 'streamed'] as const) {
    it(`with a head that has grown above what a frame can hold is a fault of its function alone: ${kind}`, async () => {
      const stream = new Readable({ read() {} })
      const body = kind === 'whole' ? Buffer.from('x') : stream
      await using scope = await HopScope.open((fn) => {
        if (fn === 'waits') return undefined
        return fn === 'hostile'
          ? { status: 200, headers: ['a', DECODED], body }
          : { status: 204, headers: [], body: Buffer.alloc(0) }
      })
      let ended = false
      void scope.outcome('waits').then(() => (ended = true))
      assert.equal(await scope.outcome('hostile'), 'FUNCTION_BAD_ANSWER')
      assert.equal(await scope.outcome('other'), '204')
      assert.equal(ended, false)
      assert.deepEqual(scope.lost, [])
      // Or its function would go on for nobody.
      assert.equal(stream.destroyed, kind === 'streamed')
    })
  }

  it('with the longest head that a frame can hold arrives, whatever it says', async () => {
    const headers = ['a', `${DECODED.slice(0, 21_844)}x`]
    assert.equal(Buffer.byteLength(headers.join('\n')), 65_535)
    await using scope = await HopScope.open(() => ({ status: 200, headers, body: Buffer.alloc(0) }))
    const answer = await scope.worker.invoke(invocation())
    assert.deepEqual(answer.headers, headers)
  })
})
