import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { after, describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { WorkerFronts, type Fronts } from '#agent/fronts/index.ts'
import { eventually } from '#test/eventually.ts'
import { TestInvoker } from '#test/invoker.ts'
import { RawCoap, uriPath } from '#test/raw-coap.ts'

// What fronts let in follows from the memory and the descriptors of their process, and from how many of them there are.

const MIB = 1024 * 1024
const LOCAL = { host: '127.0.0.1', bodyBytesMax: MIB } as const
/** Of one datagram; so many of them are more than 8 MiB. */
const BODY_BYTES = 60_000
const BODIES = 160

class NamingInvoker extends TestInvoker {
  onNames: (() => void) | undefined
}

/** The program of a front of its own process: tells its ports, ends with its standard input. */
const PROGRAM = `
  const { OwnFronts } = await import('#agent/fronts/index.ts')
  const { TestInvoker } = await import('#test/invoker.ts')
  const { pino } = await import('pino')
  const [workers, ports] = process.argv.slice(1).map((text) => JSON.parse(text))
  const log = pino({ level: 'silent' })
  const settings = { host: '${LOCAL.host}', bodyBytesMax: ${MIB}, ports, invoker: new TestInvoker(), log }
  const fronts = await OwnFronts.open(settings, workers)
  console.log(JSON.stringify(fronts.ports))
  process.stdin.resume().on('end', () => process.exit(0))
`

/** The program of an agent that cannot start all of its workers, or can: tells which, and ends by itself. */
const WORKERS_PROGRAM = `
  const { WorkerFronts } = await import('#agent/fronts/index.ts')
  const { TestInvoker } = await import('#test/invoker.ts')
  const { pino } = await import('pino')
  const log = pino({ level: 'silent' })
  const ports = { http: 0, coap: -1, grpc: -1 }
  const settings = { host: '${LOCAL.host}', bodyBytesMax: ${MIB}, ports, invoker: new TestInvoker(), log }
  try {
    const fronts = await WorkerFronts.open({ ...settings, workers: 4 })
    console.log('open')
    await fronts.close()
  } catch (error) {
    console.log(error.code)
  }
`

/** A process that believes that it may have so much memory. */
function memoryOf(limitMiB: number): string {
  const source = `process.constrainedMemory = () => ${limitMiB * MIB}`
  return `--import=data:text/javascript,${encodeURIComponent(source)}`
}

const children: ChildProcess[] = []
after(async () => {
  for (const child of children) {
    child.stdin?.end()
    await once(child, 'exit')
  }
})

async function frontsIn(
  workers: number,
  ports: Fronts['ports'],
  { descriptorsMax = 4_096, limitMiB = 4_096 },
): Promise<Fronts['ports']> {
  const shell = `ulimit -n ${descriptorsMax} && exec "$0" "$@"`
  const node = [process.execPath, memoryOf(limitMiB), '--input-type=module', '-e', PROGRAM]
  const args = ['-c', shell, ...node, String(workers), JSON.stringify(ports)]
  const child = spawn('sh', args, { stdio: ['pipe', 'pipe', 'inherit'] })
  children.push(child)
  const [line] = await once(child.stdout, 'data')
  return JSON.parse(String(line))
}

/** How many of some calls that each have a body are refused while none has ended. */
async function refusedOf(port: number): Promise<number> {
  const client = await RawCoap.open(port)
  const options = [
    ...uriPath('slow'),
    { name: 'Uri-Query' as const, value: Buffer.from('ms=20000') },
  ]
  const payload = Buffer.alloc(BODY_BYTES)
  const codes = new Map<string, number>()
  for (let call = 0; call < BODIES; call++) {
    client.send({ code: 'POST', payload, options })
    // One after the other, lest the kernel drops some: what is behind it says that the body has been taken.
    client.send({ code: 'GET', options: uriPath('nobody') })
    for (;;) {
      const { code } = await client.receive()
      if (code === '4.04') break
      codes.set(code, (codes.get(code) ?? 0) + 1)
    }
  }
  await client[Symbol.asyncDispose]()
  assert.deepEqual(
    [...codes.keys()].filter((code) => code !== '4.29'),
    [],
  )
  return codes.get('4.29') ?? 0
}

async function connected(port: number): Promise<Socket> {
  const socket = connect(port, LOCAL.host)
  socket.on('error', () => undefined)
  await once(socket, 'connect')
  return socket
}

/** How many of these connections are kept when their peer says nothing. */
async function keptOf(port: number, count: number, expected: number): Promise<number> {
  const sockets = await Promise.all(Array.from({ length: count }, () => connected(port)))
  let open = count
  for (const socket of sockets) socket.resume().on('close', () => (open -= 1))
  await eventually(() => open <= expected)
  // None of these is let go later.
  await sleep(300)
  for (const socket of sockets) socket.destroy()
  return open
}

describe('limits of fronts', () => {
  it('where memory is short, bodies over CoAP get as little as those over HTTP', async () => {
    const ports = { http: -1, coap: 0, grpc: -1 }
    const { coap } = await frontsIn(1, ports, { limitMiB: 96 })
    const refused = await refusedOf(coap)
    const most = Math.floor((8 * MIB) / BODY_BYTES)
    assert.equal(refused, BODIES - most)
  })

  it('workers share the memory of their group: each has its part of what one process would have', async () => {
    // In one process 256 MiB are enough for 88 MiB of bodies.
    const before = process.env['NODE_OPTIONS']
    process.env['NODE_OPTIONS'] = `${before ?? ''} ${memoryOf(256)}`.trim()
    const ports = { http: -1, coap: 0, grpc: -1 }
    const settings = {
      ...LOCAL,
      ports,
      invoker: new NamingInvoker(),
      log: pino({ level: 'silent' }),
    }
    try {
      const fronts = await WorkerFronts.open({ ...settings, workers: 2 })
      try {
        const refused = await refusedOf(fronts.ports.coap)
        assert.equal(refused, BODIES - Math.floor((8 * MIB) / BODY_BYTES))
      } finally {
        await fronts.close()
      }
    } finally {
      if (before === undefined) delete process.env['NODE_OPTIONS']
      else process.env['NODE_OPTIONS'] = before
    }
  })

  it('workers with few descriptors take as few connections as one process would', async () => {
    const ports = { http: 0, coap: -1, grpc: 0 }
    for (const workers of [1, 2]) {
      const { http, grpc } = await frontsIn(workers, ports, { descriptorsMax: 640 })
      assert.equal(await keptOf(grpc, 120, 64), 64, `gRPC, ${workers}`)
      assert.equal(await keptOf(http, 150, 96), 96, `HTTP, ${workers}`)
    }
  })

  it('with too few descriptors for all of them, no worker is left and the reason is told', async () => {
    const told = new Set<string>()
    for (const descriptors of [29, 31, 64]) {
      const shell = `ulimit -n ${descriptors} && exec "$0" -e "$1"`
      const args = ['-c', shell, process.execPath, WORKERS_PROGRAM]
      const child = spawn('sh', args, { stdio: ['ignore', 'pipe', 'inherit'] })
      const [lines, [code]] = await Promise.all([child.stdout.toArray(), once(child, 'close')])
      assert.equal(code, 0, `${descriptors} descriptors`)
      told.add(Buffer.concat(lines).toString().trim())
    }
    assert.deepEqual([...told].toSorted(), ['INTERNAL', 'open'])
  })
})
