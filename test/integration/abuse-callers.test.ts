import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { dockerScope } from '#test/docker.ts'
import { eventually } from '#test/eventually.ts'
import { grpcClient } from '#test/grpc-proxy-scope.ts'
import { testImages } from '#test/images.ts'
import { RawTcp } from '#test/raw-tcp.ts'
import { ServedNode } from '#test/served-node.ts'

/** Streams for ever, reads for ever, or never answers: until its caller has gone. */
const ENDLESS = `
const told = { begun: 0, ended: 0 }
module.exports = async (req, res) => {
  if (req.path === '/told') return res.json(told)
  told.begun += 1
  const gone = new Promise((resolve) => res.once('close', resolve))
  void gone.then(() => (told.ended += 1))
  if (req.path === '/silent') return gone
  if (req.path === '/once') {
    res.write('beat\\n')
    return gone
  }
  const beat = setInterval(() => res.write('beat\\n'), 20)
  await gone
  clearInterval(beat)
}
`

interface Told {
  readonly begun: number
  readonly ended: number
}

const descriptors = (): number => readdirSync('/proc/self/fd').length

/** How many there are when those of earlier calls have been closed. */
function settledDescriptors(): Promise<number> {
  return eventually(async () => {
    const count = descriptors()
    await sleep(200)
    return descriptors() === count && count
  })
}

const PEERS = 40

/** What a caller does before it vanishes; resolves when it is in the middle of that. */
type Way = (raw: RawTcp) => Promise<unknown>

const head = (path: string, more = ''): string =>
  `POST /endless${path} HTTP/1.1\r\nHost: x\r\n${more}\r\n`

/** How many calls each caller begins, for the agent and for the function, which gets a body as a whole. */
interface Begun {
  readonly way: Way
  readonly calls: 0 | 1
  readonly begun?: 0
}

const WAYS: Readonly<Record<string, Begun>> = {
  'in the answer': {
    way: (raw) => {
      raw.write(head('', 'Content-Length: 1\r\n') + 'x')
      return raw.until(/beat/, 20_000)
    },
    calls: 1,
  },
  'in an answer that has fallen silent': {
    way: (raw) => {
      raw.write(head('/once', 'Content-Length: 1\r\n') + 'x')
      return raw.until(/beat/, 20_000)
    },
    calls: 1,
  },
  'while the function is silent': {
    way: async (raw) => {
      raw.write(head('/silent', 'Content-Length: 1\r\n') + 'x')
    },
    calls: 1,
  },
  'in a body that is streamed': {
    way: async (raw) => {
      raw.write(head('/silent', 'Transfer-Encoding: chunked\r\n') + '5\r\nhello\r\n5\r\nhe')
    },
    calls: 1,
    begun: 0,
  },
  'in a small body': {
    way: async (raw) => {
      raw.write(head('/silent', 'Content-Length: 10\r\n') + 'hello')
    },
    calls: 0,
  },
  'in a header': {
    way: async (raw) => {
      raw.write('POST /endless HTTP/1.1\r\nHos')
    },
    calls: 0,
  },
  'without a word': { way: async () => undefined, calls: 0 },
}

for (const [where, { way, calls, begun = calls }] of Object.entries(WAYS)) {
  test(`HTTP callers that vanish ${where}: the function is told, and no descriptor is left`, async () => {
    await using node = await ServedNode.start()
    const { lane } = await node.deploy('endless', ENDLESS, { concurrency: 200 })
    const told = async (): Promise<Told> => {
      const answer = await fetch(node.url('/endless/told'), { headers: { connection: 'close' } })
      return JSON.parse(await answer.text())
    }
    await told()
    const before = await settledDescriptors()
    const peers = await Promise.all(
      Array.from({ length: PEERS }, () => RawTcp.connect(node.http.port)),
    )
    await Promise.all(peers.map(way))
    await eventually(async () => (await told()).begun === PEERS * begun)
    await eventually(() => lane.stats().calls.inFlight === PEERS * calls)
    // Both ends are open.
    await eventually(() => descriptors() >= before + 2 * PEERS)
    // Half of them by a reset, half by an end.
    for (const [index, { socket }] of peers.entries()) {
      if (index % 2 === 0) socket.resetAndDestroy()
      else socket.destroy()
    }
    await eventually(async () => (await told()).ended === PEERS * begun)
    await eventually(() => descriptors() <= before)
    await eventually(() => lane.stats().calls.inFlight === 0)
    assert.equal(lane.stats().calls.cancelled, PEERS * calls)
  })
}

test('HTTP callers that are cut off from the network while the function is silent: it is told', async () => {
  await using node = await ServedNode.start({ host: '0.0.0.0', probeAfterMs: 1_000 })
  const { lane } = await node.deploy('endless', ENDLESS, { timeoutMs: 600_000 })
  await using scope = dockerScope()
  const { docker, labels: Labels, run } = scope
  const network = await docker.createNetwork({ Name: run, Labels })
  const { IPAM } = await network.inspect()
  const url = `http://${IPAM?.Config?.[0]?.['Gateway']}:${node.http.port}/endless/silent`
  const caller = await docker.createContainer({
    Image: testImages().docker?.nodejs?.run ?? '',
    Entrypoint: ['node', '-e', `fetch('${url}')`],
    Labels,
    HostConfig: { NetworkMode: run },
  })
  await caller.start()
  await eventually(() => lane.stats().calls.inFlight === 1, { timeoutMs: 30_000 })
  // Nothing tells the node: no FIN, no RST.
  await network.disconnect({ Container: caller.id, Force: true })
  await eventually(() => lane.stats().calls.cancelled === 1, { timeoutMs: 30_000 })
  assert.equal((await caller.inspect()).State.Running, true)
})

test('gRPC callers that vanish in the middle of a stream: the same', async () => {
  await using node = await ServedNode.start()
  const { lane } = await node.deploy('endless', ENDLESS, { concurrency: 200 })
  const told = async (): Promise<Told> => {
    const answer = await fetch(node.url('/endless/told'), { headers: { connection: 'close' } })
    return JSON.parse(await answer.text())
  }
  await told()
  const before = await settledDescriptors()
  const address = `127.0.0.1:${node.grpc.port}`
  const streams = await Promise.all(
    Array.from({ length: PEERS }, async () => {
      const client = grpcClient(address, 'shoal.proto', 'shoal.v1.Functions')
      const stream = client.stream('InvokeStream', { function: 'endless' })
      const chunks = stream[Symbol.asyncIterator]()
      await chunks.next()
      return { client, stream, chunks }
    }),
  )
  assert.equal((await told()).begun, PEERS)
  for (const { client, stream, chunks } of streams) {
    stream.cancel()
    client[Symbol.dispose]()
    await assert.rejects(async () => {
      while ((await chunks.next()).done !== true);
    })
  }
  await eventually(async () => (await told()).ended === PEERS)
  await eventually(() => descriptors() <= before)
  await eventually(() => lane.stats().calls.inFlight === 0)
})
