import assert from 'node:assert/strict'
import * as fs from 'node:fs/promises'
import { Readable } from 'node:stream'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { headers } from '@nats-io/transport-node'
import type { Invocation, Result } from '#agent/invoke/index.ts'
import { signEnvelope } from '#shared/envelope.ts'
import { Fault } from '#shared/fault.ts'
import type { LogLine } from '#shared/schemas/health.ts'
import { HEAD_HEADER, type InvokeReplyHead, type LogsReply } from '#shared/schemas/wire.ts'
import { subjects } from '#shared/subjects.ts'
import { eventually } from '#test/eventually.ts'
import { NODE, inventory, nodeScope } from '#test/nats-node-scope.ts'
import { assignmentOf, testKey } from '#test/signer.ts'
import { tempFolder } from '#test/temp.ts'
import { TinyController } from '#test/tiny-controller.ts'

describe('a node and its controller', () => {
  it('says hello on connecting and after the broker was killed, and takes the command it is given', async () => {
    await using controller = await TinyController.start()
    controller.helloReply = { command: await controller.signed(NODE, 1) }
    await using node = await nodeScope(controller)
    await eventually(() => node.commands.length === 1)
    assert.deepEqual(controller.hellos, [{ node: NODE, generation: 0, trustVersion: 1, inventory }])

    await controller.nats.kill('SIGKILL')
    await eventually(() => !node.link.connected)
    assert.equal(node.link.publish(subjects.health(NODE), 'lost'), false)
    await controller.nats.start()
    await eventually(() => controller.hellos.length === 2)
    assert.equal(controller.hellos[1]?.generation, 1)
    // The same command again is neither news nor a refusal.
    await eventually(() => node.link.connected)
    assert.equal(node.keeper.refusal, undefined)
    assert.equal(node.commands.length, 1)
  })

  it('keeps and acknowledges a command that comes just before the end, starts nothing of it, and takes no other', async () => {
    const written = Promise.withResolvers<void>()
    const writing = Promise.withResolvers<void>()
    const gate = { closed: false }
    await using controller = await TinyController.start()
    await using node = await nodeScope(controller, {
      onRename: async () => {
        if (!gate.closed) return
        writing.resolve()
        await written.promise
      },
    })
    await eventually(() => controller.hellos.length > 0)
    gate.closed = true
    const sent = controller.send(NODE, await controller.signed(NODE, 1))
    await writing.promise
    const closed = node.service.close()
    const late = controller.send(NODE, await controller.signed(NODE, 2))
    written.resolve()
    await closed
    assert.deepEqual(await sent, { accepted: true, generation: 1 })
    await assert.rejects(late)
    assert.equal(node.keeper.generation, 1)
    assert.equal(node.commands.length, 0)
  })

  it('asks on until a controller answers its hello', async () => {
    await using controller = await TinyController.start()
    controller.hearHellos(false)
    await using node = await nodeScope(controller)
    await eventually(() => node.link.connected)
    await sleep(400)
    assert.equal(controller.hellos.length, 0)
    controller.hearHellos(true)
    await eventually(() => controller.hellos.length === 1)
  })

  it('keeps what it acknowledges, and names why it refuses', async () => {
    await using controller = await TinyController.start()
    await using node = await nodeScope(controller)
    await eventually(() => controller.hellos.length > 0)

    const functions = [assignmentOf('sieve')]
    const first = await controller.signed(NODE, 4, functions)
    assert.deepEqual(await controller.send(NODE, first), { accepted: true, generation: 4 })
    const kept = await fs.readFile(`${node.folder}/command.json`, 'utf8')
    assert.ok(kept.includes(first.payload))
    assert.deepEqual(node.commands[0]?.functions, functions)

    const other = await controller.signing.signCommand({
      node: 'edge-2',
      generation: 9,
      issuedAtMs: 0,
      expiresAtMs: Date.now() + 60_000,
      functions: [],
    })
    const expired = await controller.signing.signCommand({
      node: NODE,
      generation: 9,
      issuedAtMs: 0,
      expiresAtMs: Date.now() - 1,
      functions: [],
    })
    const [signature] = first.signatures
    const flipped = { ...first, payload: (await controller.signed(NODE, 5)).payload }
    const refused: [unknown, string][] = [
      ['no json', 'COMMAND_MALFORMED'],
      [{ payload: first.payload, signatures: [] }, 'COMMAND_MALFORMED'],
      [{ ...flipped, signatures: [signature] }, 'COMMAND_SIGNATURE'],
      [await controller.signed(NODE, 3), 'COMMAND_REPLAYED'],
      [other, 'COMMAND_AUDIENCE'],
      [expired, 'COMMAND_EXPIRED'],
    ]
    for (const [envelope, code] of refused) {
      const reply = await controller.send(NODE, envelope)
      assert.equal(reply.accepted ? 'accepted' : reply.code, code)
      assert.equal(reply.generation, 4)
      assert.equal(node.keeper.refusal?.code, code)
    }
    // The kept one once more is refused as well, and no news.
    const again = await controller.send(NODE, first)
    assert.equal(again.accepted ? 'accepted' : again.code, 'COMMAND_REPLAYED')
    assert.equal(node.keeper.refusal?.code, 'COMMAND_EXPIRED')
    assert.equal(node.commands.length, 1)
  })

  it('starts from its disk while the broker is away, and connects when it comes', async () => {
    await using controller = await TinyController.start()
    await using folder = await tempFolder()
    {
      await using node = await nodeScope(controller, { folder: folder.path })
      await eventually(() => controller.hellos.length > 0)
      await controller.send(NODE, await controller.signed(NODE, 7, [assignmentOf('echo')]))
      assert.equal(node.keeper.generation, 7)
    }
    await controller.nats.kill()
    const startedMs = performance.now()
    await using node = await nodeScope(controller, { folder: folder.path })
    assert.ok(performance.now() - startedMs < 4_500)
    assert.equal(node.keeper.command?.functions[0]?.fn, 'echo')
    assert.equal(node.link.connected, false)
    assert.equal(controller.joins.length, 1)
    await sleep(300)
    await controller.nats.start()
    await eventually(() => node.link.connected)
    await eventually(() => controller.hellos.at(-1)?.generation === 7)
  })

  it('ends quickly while the broker is away', async () => {
    await using controller = await TinyController.start()
    const node = await nodeScope(controller)
    await controller.nats.kill()
    await eventually(() => !node.link.connected)
    const startedMs = performance.now()
    await node[Symbol.asyncDispose]()
    assert.ok(performance.now() - startedMs < 4_500)
  })
})

describe('trust documents with a hello', () => {
  for (const bothSign of [true, false]) {
    it(`a new root, signed by ${bothSign ? 'old and new: adopted' : 'the new one only: refused'}`, async () => {
      await using controller = await TinyController.start()
      await using folder = await tempFolder()
      const { trust } = controller.signing
      const newRoot = await testKey()
      const rotated = {
        ...trust,
        version: 2,
        keys: { ...trust.keys, [newRoot.kid]: newRoot.publicKey },
        roles: { ...trust.roles, root: { keyIds: [newRoot.kid], threshold: 1 } },
      }
      const signers = bothSign ? [await controller.rootSigner(), newRoot] : [newRoot]
      controller.helloReply = { trust: [await signEnvelope(rotated, signers, 'root')] }
      const wanted = bothSign ? 2 : 1
      for (const start of [1, 2]) {
        await using node = await nodeScope(controller, { folder: folder.path })
        const hellos = controller.hellos.length
        await eventually(() => controller.hellos.length > hellos || hellos > 0)
        await eventually(() => node.link.connected)
        await controller.send(NODE, await controller.signed(NODE, node.keeper.generation + 1))
        await eventually(() => node.trust.document.version === wanted)
        assert.equal(node.keeper.generation, start)
      }
      assert.equal(controller.hellos.at(-1)?.trustVersion, wanted)
    })
  }
})

async function call(controller: TinyController, head: unknown, body = '') {
  const request = headers()
  request.set(HEAD_HEADER, JSON.stringify(head))
  const reply = await controller.connection.request(subjects.invoke(NODE), body, {
    timeout: 5_000,
    headers: request,
  })
  const answer: InvokeReplyHead = JSON.parse(reply.headers?.get(HEAD_HEADER) ?? '')
  return { ...answer, body: reply.string() }
}

describe('calls over NATS', () => {
  const head = {
    fn: 'echo',
    method: 'post',
    path: '/a',
    query: 'b=c',
    headers: [['X-One', '1']],
    deadlineMs: 1_000,
  }

  it('carry method, path, query, headers, body and deadline there, status, headers and body back', async () => {
    await using controller = await TinyController.start()
    const seen: Invocation[] = []
    await using node = await nodeScope(controller, {
      invoke: async (invocation) => {
        seen.push(invocation)
        return { status: 201, headers: ['x-two', '2', 'x-two', '3'], body: invocation.body }
      },
    })
    await eventually(() => node.link.connected && controller.hellos.length > 0)
    const answer = await call(controller, head, 'hi')
    assert.deepEqual(answer, {
      status: 201,
      headers: [
        ['x-two', '2'],
        ['x-two', '3'],
      ],
      body: 'hi',
    })
    const [invocation] = seen
    assert.ok(invocation)
    const { requestId, body, ...rest } = invocation
    assert.match(requestId, /^[0-9a-f-]{36}$/)
    assert.deepEqual(body, Buffer.from('hi'))
    assert.deepEqual(rest, {
      fn: 'echo',
      method: 'POST',
      path: '/a',
      query: 'b=c',
      headers: ['x-one', '1'],
      protocol: 'nats',
      deadlineMs: 1_000,
    })
  })

  it('answer with the code of every fault', async () => {
    await using controller = await TinyController.start()
    const results: (() => Promise<Result>)[] = [
      () => Promise.reject(new Fault('FUNCTION_UNKNOWN', 'none')),
      () => Promise.reject(new Error('a secret of ours')),
      async () => ({ status: 200, headers: [], body: Buffer.alloc(900_000) }),
      async () => ({
        status: 200,
        headers: [],
        body: Readable.from([Buffer.alloc(500_000), Buffer.alloc(500_000)]),
      }),
      async () => ({ status: 200, headers: [], body: Readable.from([Buffer.from('a'), 'b']) }),
    ]
    await using node = await nodeScope(controller, {
      invoke: () => results.shift()?.() ?? Promise.reject(new Error('asked too often')),
    })
    await eventually(() => node.link.connected && controller.hellos.length > 0)
    const codes = [
      'FUNCTION_UNKNOWN',
      'INTERNAL',
      'FUNCTION_OUTPUT_TOO_LARGE',
      'FUNCTION_OUTPUT_TOO_LARGE',
      undefined,
    ]
    for (const code of codes) assert.equal((await call(controller, head)).code, code)
    const invalid = [{}, { ...head, path: '/a\nb' }, { ...head, deadlineMs: 0 }, 'text']
    for (const wrong of invalid) {
      assert.equal((await call(controller, wrong)).code, 'REQUEST_INVALID')
    }
  })
})

const line = (text: string): LogLine => ({
  atMs: 1,
  fn: 'site/thermo',
  release: 'r1-00000000',
  handler: 'abc',
  level: 'info',
  text,
})

describe('logs over NATS', () => {
  it('give the last lines, follow while the lease runs, and survive a restart', async () => {
    await using controller = await TinyController.start()
    await using folder = await tempFolder()
    const ask = async (tail: number, followMs: number): Promise<LogsReply> => {
      const request = JSON.stringify({ fn: 'site/thermo', tail, followMs })
      const reply = await controller.connection.request(subjects.logs(NODE), request, {
        timeout: 10_000,
      })
      return reply.json()
    }
    const live: LogLine[] = []
    controller.connection.subscribe(subjects.log(NODE, 'site/thermo'), {
      callback: (_error, message) => {
        live.push(...message.json<LogLine[]>())
      },
    })
    {
      await using node = await nodeScope(controller, { folder: folder.path })
      await eventually(() => controller.hellos.length > 0)
      for (const text of ['one', 'two', 'three']) node.logs.add(line(text))
      const { lines, dropped } = await ask(2, 5_000)
      assert.deepEqual([lines.map(({ text }) => text), dropped], [['two', 'three'], 0])
      node.logs.add(line('four'))
      await eventually(() => live.length === 1)
      await sleep(5_100)
      node.logs.add(line('nobody follows'))
      await sleep(300)
      assert.deepEqual(
        live.map(({ text }) => text),
        ['four'],
      )
    }
    const hellos = controller.hellos.length
    await using again = await nodeScope(controller, { folder: folder.path })
    assert.equal(again.keeper.generation, 0)
    await eventually(() => controller.hellos.length > hellos)
    const { lines } = await ask(100, 0)
    assert.deepEqual(
      lines.map(({ text }) => text),
      ['one', 'two', 'three', 'four', 'nobody follows'],
    )
  })

  it('follow a function although a hundred silent ones were followed before', async () => {
    await using controller = await TinyController.start()
    await using node = await nodeScope(controller)
    await eventually(() => controller.hellos.length > 0)
    const follow = async (fn: string, followMs: number): Promise<void> => {
      const request = JSON.stringify({ fn, tail: 0, followMs })
      await controller.connection.request(subjects.logs(NODE), request, { timeout: 10_000 })
    }
    for (let at = 0; at < 100; at += 1) await follow(`silent/f${at}`, 50)
    let followed = false
    controller.connection.subscribe(subjects.log(NODE, 'site/thermo'), {
      callback: () => {
        followed = true
      },
    })
    await sleep(100)
    await follow('site/thermo', 10_000)
    node.logs.add(line('seen'))
    await eventually(() => followed)
  })
})
