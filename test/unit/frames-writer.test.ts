import assert from 'node:assert/strict'
import { PassThrough, Readable } from 'node:stream'
import { describe, it } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { FrameWriter } from '#agent/invoke/frames/index.ts'
import { slabs } from '#agent/invoke/frames/slabs.ts'
import { StreamSender } from '#agent/invoke/link/index.ts'
import { blocks } from '#agent/sockets/index.ts'
import { collectGarbage } from '#test/collect-garbage.ts'
import { cutFrames } from '#test/frame-peer.ts'

const WINDOW = 65_536
const HOOKS = { sent: () => {}, broke: (fault: Error) => assert.fail(fault) }

/** A peer that reads nothing until `read`, which returns what came. */
function unread() {
  const chunks: Buffer[] = []
  const written: ((error?: Error) => void)[] = []
  const output = {
    backlogBytes: 0,
    write: (chunk: Buffer, told?: (error?: Error) => void) => {
      chunks.push(chunk)
      output.backlogBytes += chunk.length
      if (told !== undefined) written.push(told)
    },
    cork: () => {},
    uncork: () => {},
  }
  return {
    chunks,
    /** Callbacks of what is waiting. */
    written,
    writer: new FrameWriter(output),
    read: () => {
      const bytes = Buffer.concat(chunks.splice(0))
      output.backlogBytes = 0
      for (const told of written.splice(0)) told()
      return Buffer.concat(cutFrames(bytes).frames.map(({ payload }) => payload))
    },
  }
}

/** What the next writer would get. */
const nextSlab = (): ArrayBufferLike => slabs.take(1).buffer

describe('bodies on their way to a peer that does not read', () => {
  it('pieces of a byte cost their frames', async () => {
    const { writer, read } = unread()
    const source = new Readable({ read() {} })
    new StreamSender(writer, 1, source, WINDOW, WINDOW, HOOKS).start()
    await turn()
    collectGarbage()
    const before = process.memoryUsage().heapUsed
    for (let sent = 0; sent < WINDOW; sent += 1) {
      source.push(Buffer.from('x'))
      if (sent % 1_000 === 0) await turn()
    }
    await turn()
    collectGarbage()
    const costBytes = process.memoryUsage().heapUsed - before
    assert.equal(read().length, WINDOW)
    assert.ok(costBytes < 40 * WINDOW, `${costBytes} bytes for ${WINDOW}`)
  })

  it('a block that was copied is given back at once', async () => {
    const { writer, read } = unread()
    blocks.drop()
    const block = blocks.take(40_000).fill('x').subarray(0, 1_000)
    writer.data(1, 0, block, 0, block.length, true)
    assert.ok(blocks.keptBytes > 0)
    blocks.take(40_000).fill('y')
    writer.flush()
    assert.equal(read().toString(), 'x'.repeat(1_000))
  })

  it('a block whose end alone was copied is kept until its beginning has been read', async () => {
    const { writer, read } = unread()
    blocks.drop()
    const source = new PassThrough()
    const sender = new StreamSender(writer, 1, source, WINDOW, 2 * WINDOW, HOOKS)
    sender.start()
    const bytes = WINDOW + 4_096
    source.write(blocks.take(bytes).fill('x'))
    await turn()
    sender.grant(WINDOW)
    await turn()
    assert.equal(blocks.keptBytes, 0)
    assert.equal(read().toString(), 'x'.repeat(bytes))
    assert.ok(blocks.keptBytes > 0)
  })
})

describe('the scratch memory of a writer', () => {
  it('is given back when a peer that was slow has taken the last batch, though no other comes', () => {
    const { writer, chunks, read } = unread()
    for (let kept = 0; kept < 8; kept += 1) nextSlab()
    writer.window(1, 1)
    writer.flush()
    const slab = chunks[0]?.buffer
    writer.window(2, 1)
    writer.flush()
    assert.ok(nextSlab() !== slab)
    read()
    assert.ok(nextSlab() === slab)
  })

  it('stays while there is something in it that has not been written', () => {
    const { writer, chunks, read } = unread()
    writer.window(1, 1)
    writer.flush()
    const slab = chunks[0]?.buffer
    writer.window(2, 7)
    assert.equal(read().readUInt32BE(), 1)
    assert.ok(nextSlab() !== slab)
    writer.flush()
    assert.equal(read().readUInt32BE(), 7)
    assert.ok(nextSlab() === slab)
  })

  it('is not asked for again when the connection has ended', () => {
    const { writer, chunks, written } = unread()
    writer.window(1, 1)
    writer.flush()
    assert.deepEqual([chunks.length, written.length], [2, 1])
    for (const told of written.splice(0)) told(new Error('EPIPE'))
    assert.deepEqual([chunks.length, written.length], [2, 0])
  })
})
