import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { Readable } from 'node:stream'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Invocation } from '#agent/invoke/index.ts'
import { Fault } from '#shared/fault.ts'
import { eventually } from '#test/eventually.ts'
import { FramePeer, TYPE, errorBytes, frameBytes, responseBytes } from '#test/frame-peer.ts'
import { LinkScope, invocation } from '#test/invoke-scope.ts'

interface Attack {
  readonly name: string
  /** What a runner sends while a call with this id is in flight. */
  readonly bytes: (id: number) => Buffer | readonly Buffer[]
  readonly reason: RegExp
}

const ATTACKS: readonly Attack[] = [
  {
    name: 'a length of 4 GiB',
    bytes: (id) => frameBytes(TYPE.data, id, '', { length: 0xffff_ffff }),
    reason: /DATA of 4294967295 bytes, at most 1114112/,
  },
  {
    name: 'a payload too short for its fixed fields',
    bytes: (id) => frameBytes(TYPE.response, id, 'abc', { end: true }),
    reason: /RESPONSE of 3 bytes, at least 4/,
  },
  {
    name: 'a head longer than the payload',
    bytes: (id) => frameBytes(TYPE.response, id, Buffer.from([0, 200, 0, 9, 1]), { end: true }),
    reason: /shorter than its head/,
  },
  {
    name: 'a name without a value',
    bytes: (id) => responseBytes(id, '', { headers: ['a'] }),
    reason: /header name without a value/,
  },
  {
    name: 'a name in a spelling that nobody compares with',
    bytes: (id) => responseBytes(id, '', { headers: ['Content-Length', '3'] }),
    reason: /header field "Content-Length"/,
  },
  {
    name: 'a name that is no token',
    bytes: (id) => responseBytes(id, '', { headers: ['content-type', 'a', 'x: y\r', 'b'] }),
    reason: /header field "x: y\\r"/,
  },
  {
    name: 'no name',
    bytes: (id) => responseBytes(id, '', { headers: ['', 'b'] }),
    reason: /header field ""/,
  },
  {
    name: 'a value with a line end',
    bytes: (id) => responseBytes(id, '', { headers: ['x', 'a\rcontent-length: 3'] }),
    reason: /header field "x"/,
  },
  {
    name: 'a status that does not exist',
    bytes: (id) => responseBytes(id, '', { status: 600 }),
    reason: /status 600/,
  },
  {
    name: 'answers for calls that were never made, one after the other',
    bytes: () => Array.from({ length: 65 }, (_, index) => responseBytes(index * 1_000)),
    reason: /More than 64 frames for calls that are not in flight/,
  },
  {
    name: 'an answer again and again',
    bytes: (id) => Array.from({ length: 66 }, () => responseBytes(id)),
    reason: /More than 64 frames for calls that are not in flight/,
  },
  {
    name: 'two answers for one call',
    bytes: (id) => [responseBytes(id, 'a', { end: false }), responseBytes(id, 'b')],
    reason: /which has had its answer/,
  },
  {
    name: 'a body before its head',
    bytes: (id) => frameBytes(TYPE.data, id, 'x', { end: true }),
    reason: /DATA for call \d+ before its RESPONSE/,
  },
  {
    name: 'more body than the window',
    bytes: (id) => [
      responseBytes(id, '', { end: false }),
      frameBytes(TYPE.data, id, Buffer.alloc(262_145)),
    ],
    reason: /more body than its window allows/,
  },
  {
    name: 'an inline body above the window',
    bytes: (id) => responseBytes(id, Buffer.alloc(262_145)),
    reason: /more body than its window allows/,
  },
  {
    name: 'READY twice',
    bytes: () => frameBytes(TYPE.ready, 0, '{"ok":true}'),
    reason: /READY in state ready/,
  },
  {
    name: 'HELLO twice',
    bytes: () => frameBytes(TYPE.hello, 0, '{}'),
    reason: /HELLO from a runner that has been welcomed/,
  },
  {
    name: 'a frame that only an agent sends',
    bytes: () => frameBytes(TYPE.cancel, 1, 'x'),
    reason: /CANCEL from a runner/,
  },
  {
    name: 'PING of 65 bytes',
    bytes: () => frameBytes(TYPE.ping, 1, Buffer.alloc(65)),
    reason: /PING of 65 bytes, at most 64/,
  },
]

describe('a runner that breaks the protocol', () => {
  for (const { name, bytes, reason } of ATTACKS) {
    it(`${name}: its link ends with the reason, its calls get an outcome, the next runner serves`, async () => {
      await using scope = await LinkScope.open()
      await using peer = await scope.ready()
      const call = outcomeOf(scope, 'a')
      const { id } = await peer.next(TYPE.request)
      const attack = bytes(id)
      peer.send(...(Buffer.isBuffer(attack) ? [attack] : attack))
      await peer.ended()
      assert.deepEqual(scope.ends, [{ kind: 'protocol', reason: scope.ends[0]?.reason }])
      assert.match(scope.ends[0]?.reason ?? '', reason)
      const outcome = await call
      assert.match(outcome, /^(ok|(broken off: )?FUNCTION_BAD_ANSWER)$/)

      await using next = await scope.ready()
      const healed = outcomeOf(scope, 'b')
      next.send(responseBytes((await next.next(TYPE.request)).id))
      assert.equal(await healed, 'ok')
    })
  }

  it('frames before READY, other than those that are allowed, end the link', async () => {
    for (const bytes of [
      responseBytes(1),
      frameBytes(TYPE.data, 1),
      frameBytes(TYPE.error, 1, 'x'),
    ]) {
      await using scope = await LinkScope.open()
      await using peer = await FramePeer.greeted(scope.socketPath, scope.handler)
      peer.send(frameBytes(TYPE.log, 0, '\u0001allowed'), frameBytes(TYPE.ping, 0), bytes)
      await peer.ended()
      assert.match(scope.ends[0]?.reason ?? '', /before READY/)
      assert.equal(scope.lines.length, 1)
    }
  })

  it('anything but HELLO first is refused', async () => {
    const rows = [
      frameBytes(TYPE.ready, 0, '{"ok":true}'),
      frameBytes(TYPE.hello, 0, 'hello'),
      frameBytes(TYPE.hello, 0, '{"protocol":1}'),
      frameBytes(TYPE.hello, 0, '', { length: 1_000_000 }),
      Buffer.from('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n'),
    ]
    for (const bytes of rows) {
      await using scope = await LinkScope.open()
      await using peer = await FramePeer.connect(scope.socketPath)
      peer.send(bytes)
      await peer.ended()
      assert.equal(scope.links.length, 0)
      await eventually(() => scope.refused.length === 1)
    }
  })

  it('one that sends PING without end and reads nothing is cut off before memory grows', async () => {
    await using scope = await LinkScope.open()
    await using peer = await scope.ready()
    peer.socket.pause()
    const pings = Buffer.concat(
      Array.from({ length: 5_000 }, (_, id) => frameBytes(TYPE.ping, id, Buffer.alloc(64))),
    )
    const flood = (): void => {
      while (!peer.socket.destroyed && peer.socket.write(pings)) continue
    }
    peer.socket.on('drain', flood)
    flood()
    await eventually(() => scope.ends.length === 1)
    assert.match(scope.ends[0]?.reason ?? '', /does not read/)
  })

  it('one that answers what it has not read is cut off before memory grows', async () => {
    await using scope = await LinkScope.open()
    await using peer = await scope.ready()
    peer.socket.pause()
    const body = Buffer.alloc(60 * 1024)
    let answered = 0
    while (answered < 200 && scope.ends.length === 0) {
      const call = outcomeOf(scope, 'a', { body })
      peer.send(responseBytes(1))
      if ((await call) === 'ok') answered += 1
    }
    assert.match(scope.ends[0]?.reason ?? '', /answers but does not read/)
    assert.ok(answered < 100, `${answered} calls of 60 KiB each`)
  })

  it('one that grants what it has not read is cut off before memory grows', async () => {
    await using scope = await LinkScope.open()
    await using peer = await scope.ready()
    const call = outcomeOf(scope, 'a', { body: Buffer.alloc(8 * 1024 * 1024) })
    const { id } = await peer.next(TYPE.request)
    peer.socket.pause()
    const window = Buffer.alloc(4)
    window.writeUInt32BE(262_144)
    for (let grants = 0; grants < 40 && scope.ends.length === 0; grants += 1) {
      peer.send(frameBytes(TYPE.window, id, window))
      await sleep(5)
    }
    assert.match(scope.ends[0]?.reason ?? '', /answers but does not read/)
    assert.equal(await call, 'FUNCTION_BAD_ANSWER')
  })

  it('one that reads slowly, answers early and is cancelled a lot breaks nothing', async () => {
    await using scope = await LinkScope.open()
    await using peer = await scope.ready({ queue: 200 })
    let cancels = 0
    peer.onFrame = ({ type, id, payload }) => {
      const asked = type === TYPE.request && !payload.includes('cancelled')
      if (asked) peer.send(responseBytes(id))
      if (type === TYPE.cancel) {
        cancels += 1
        peer.send(errorBytes(id, 3, 'cancelled'))
      }
    }
    const pauses = setInterval(() => {
      peer.socket.pause()
      setTimeout(() => peer.socket.resume(), 8)
    }, 10)
    const calls = Array.from({ length: 160 }, async (_, index) => {
      // Streams, so that the body is behind the head that is answered.
      const body = Readable.from(Array.from({ length: 4 }, () => Buffer.alloc(65_536, index)))
      const requestId = index % 3 === 0 ? 'cancelled' : 'answered'
      const deadlineMs = index % 3 === 0 ? 40 : undefined
      return outcomeOf(scope, requestId, { body, deadlineMs })
    })
    const outcomes = new Set(await Promise.all(calls))
    clearInterval(pauses)
    assert.deepEqual(scope.ends, [])
    assert.ok(cancels > 0)
    assert.ok(outcomes.has('ok') && !outcomes.has('FUNCTION_BAD_ANSWER'), [...outcomes].join())
  })

  for (const { name, text } of [
    { name: 'long', text: 'x'.repeat(1_000) },
    { name: 'empty', text: '' },
  ]) {
    it(`one that logs ${name} lines without end loses most of them, and is told how many`, async () => {
      await using scope = await LinkScope.open()
      await using peer = await scope.ready()
      const flood = Buffer.concat(
        Array.from({ length: 20_000 }, () => frameBytes(TYPE.log, 0, `\u0001${text}`)),
      )
      peer.send(flood)
      // Told each second; a slow machine reads for longer than one.
      const { kept, notices } = await eventually(() => {
        const told = scope.lines.filter((line) => line.text.endsWith('log lines dropped]'))
        const dropped = told.map((line) => Number.parseInt(line.text.slice(1), 10))
        const taken = scope.lines.filter((line) => line.text === text).length
        assert.equal(
          dropped.reduce((sum, lines) => sum + lines, taken),
          20_000,
        )
        return { kept: taken, notices: told }
      })
      assert.ok(notices.every(({ level }) => level === 'warn'))
      assert.ok(kept > 500 && kept < 8_000 * notices.length, String(kept))
      peer.send(frameBytes(TYPE.log, 0, '\u0001again'))
      await eventually(() => scope.lines.at(-1)?.text === 'again')
    })
  }

  it('texts above 16 KiB are cut', async () => {
    await using scope = await LinkScope.open()
    await using peer = await scope.ready()
    const call = scope.router.invoke(invocation()).catch((error: unknown) => error)
    const { id } = await peer.next(TYPE.request)
    peer.send(
      frameBytes(TYPE.log, id, `\u0001${'l'.repeat(100_000)}`),
      frameBytes(TYPE.error, id, `\u0000${'e'.repeat(100_000)}`),
    )
    const fault = await call
    assert(Fault.is(fault, 'FUNCTION_ERROR'))
    assert.equal(fault.message.length, 16_384)
    assert.equal(scope.lines[0]?.text.length, 16_384)
  })
})

describe('streams of the vectors that an agent receives', () => {
  interface Stream {
    readonly name: string
    readonly receiver: string
    readonly after: 'connect' | 'welcome' | 'ready'
    readonly error: string | null
    readonly hex: string
  }
  const path = new URL('../../runtimes/vectors/streams.json', import.meta.url)
  const streams: readonly Stream[] = JSON.parse(readFileSync(path, 'utf8'))
  const ours = streams.filter(({ receiver }) => receiver === 'agent')
  assert(ours.length > 5)
  for (const { name, after, error, hex } of ours) {
    it(`${name}: ${error ?? 'accepted'}`, async () => {
      await using scope = await LinkScope.open()
      await using peer =
        after === 'connect'
          ? await FramePeer.connect(scope.socketPath)
          : after === 'welcome'
            ? await FramePeer.greeted(scope.socketPath, scope.handler)
            : await scope.ready()
      if (after === 'ready') {
        // The vectors speak of call 1.
        void outcomeOf(scope, 'a')
        assert.equal((await peer.next(TYPE.request)).id, 1)
      }
      peer.send(Buffer.from(hex, 'hex'))
      if (error === null) {
        peer.send(frameBytes(TYPE.ping, 99))
        await eventually(() => peer.frames.some(({ type, id }) => type === TYPE.pong && id === 99))
        assert.equal(peer.closed, false)
      } else {
        await peer.ended()
        assert(scope.ends[0]?.kind === 'protocol' || scope.refused.length === 1)
      }
    })
  }
})

async function outcomeOf(
  scope: LinkScope,
  requestId: string,
  fields: Partial<Invocation> = {},
): Promise<string> {
  try {
    const { body } = await scope.router.invoke(invocation({ ...fields, requestId }))
    if (Buffer.isBuffer(body)) return 'ok'
    try {
      for await (const chunk of body) assert(Buffer.isBuffer(chunk))
      return 'ok'
    } catch (error) {
      return `broken off: ${Fault.from(error).code}`
    }
  } catch (error) {
    return Fault.from(error).code
  }
}
