import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { collectGarbage } from '#test/collect-garbage.ts'
import * as fc from 'fast-check'
import { ResponseBody } from '#agent/invoke/link/response-body.ts'
import { Slot } from '#agent/invoke/link/slot.ts'

const WINDOW = 65_536

/** A body with a sender that keeps to its window, as a runner must. */
function bodyScope() {
  let grantedBytes = WINDOW
  let sentBytes = 0
  const feed = {
    consumed: (_: Slot, bytes: number) => {
      const ungranted = bytes + WINDOW - grantedBytes
      if (ungranted >= WINDOW >>> 1) grantedBytes += ungranted
    },
    dropped: () => {},
  }
  const body = new ResponseBody(feed, new Slot(1))
  return {
    body,
    /** Bytes that may be sent now. */
    room: () => grantedBytes - sentBytes,
    send: (chunk: Buffer) => {
      sentBytes += chunk.length
      assert.ok(sentBytes <= grantedBytes, 'more than the window')
      body.accept(chunk)
    },
  }
}

type Reader = (body: ResponseBody, into: (chunk: Buffer) => void, pause: () => boolean) => void

const READERS: Readonly<Record<string, Reader>> = {
  'data events': (body, into, pause) => {
    body.on('data', (chunk: Buffer) => {
      into(chunk)
      if (!pause()) return
      body.pause()
      setImmediate(() => body.resume())
    })
  },
  'readable events': (body, into, pause) => {
    body.on('readable', () => {
      const half = pause() ? body.readableLength >>> 1 || undefined : undefined
      for (let chunk = body.read(half); chunk !== null; chunk = body.read()) into(chunk)
    })
  },
  'for await': (body, into, pause) => {
    void (async () => {
      for await (const chunk of body) {
        into(chunk)
        if (pause()) await turn()
      }
    })()
  },
}

/** What is alive. */
function used(): number {
  collectGarbage()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

describe('response body', () => {
  for (const [name, read] of Object.entries(READERS)) {
    it(`read by ${name}: all bytes in order, whatever the chunks and the reader's pace`, async () => {
      const size = fc.oneof(
        { weight: 4, arbitrary: fc.integer({ min: 1, max: 20 }) },
        { weight: 2, arbitrary: fc.integer({ min: 1, max: 20_000 }) },
        { weight: 1, arbitrary: fc.integer({ min: 16_000, max: WINDOW }) },
      )
      const step = fc.record({ size, turn: fc.boolean() })
      const steps = fc.array(step, { minLength: 1, maxLength: 60 })
      const pauses = fc.infiniteStream(fc.boolean())
      await fc.assert(
        fc.asyncProperty(steps, pauses, fc.nat(60), async (chunks, paused, readAt) => {
          const { body, room, send } = bodyScope()
          const ended = new Promise((resolve) => body.once('end', resolve))
          const got: Buffer[] = []
          const sent: Buffer[] = []
          const begin = (): void =>
            read(
              body,
              (chunk) => got.push(chunk),
              () => paused.next().value === true,
            )
          let begun = false
          for (const [at, { size: bytes, turn: waits }] of chunks.entries()) {
            if (at === readAt || (!begun && room() === 0)) {
              if (!begun) begin()
              begun = true
            }
            for (let turns = 0; room() === 0; turns += 1) {
              assert.ok(turns < 1_000, 'the window does not open')
              await turn()
            }
            const chunk = Buffer.alloc(Math.min(bytes, room()), at + 1)
            sent.push(chunk)
            send(Buffer.from(chunk))
            if (waits) await turn()
          }
          body.finish()
          if (!begun) begin()
          await ended
          assert.ok(Buffer.concat(got).equals(Buffer.concat(sent)))
        }),
        { numRuns: 150 },
      )
    })
  }

  it('costs what it holds, and not what it came in', () => {
    const before = used()
    const bodies = Array.from({ length: 8 }, () => {
      const scope = bodyScope()
      while (scope.room() > 0) scope.send(Buffer.from('x'))
      return scope.body
    })
    const costBytes = used() - before
    for (const body of bodies) body.destroy()
    assert.ok(costBytes < 3 * 8 * WINDOW, `${costBytes} bytes for ${8 * WINDOW}`)
  })

  it('read as quickly as it comes, its chunks cost what they hold', async () => {
    const { body, send } = bodyScope()
    const kept: Buffer[] = []
    body.on('data', (chunk: Buffer) => kept.push(chunk))
    await turn()
    const before = used()
    for (let count = 0; count < 1_000; count += 1) {
      for (let each = 0; each < 3; each += 1) send(Buffer.from('x'))
      await turn()
    }
    const costBytes = used() - before
    assert.equal(Buffer.concat(kept).length, 3_000)
    body.destroy()
    assert.ok(costBytes < 1_000 * 1_024, `${costBytes} bytes for ${kept.length} chunks`)
  })
})
