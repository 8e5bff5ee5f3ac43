/**
 * Measures the hop alone: frames over a Unix socket to a runner with an echo function, and back.
 *
 * `node test/bench/hop.ts [--runtime nodejs|nodejs-native|python3|python3-native|python3-async|binary] [--in-flight 1,32] [--bytes 100]
 * [--seconds 3] [--image <id>] [--runner <path of the built binary runner>]`: prints one line of JSON per run. With `--image` the runner is
 * a container of that image, without network, else a process.
 */
import { once } from 'node:events'
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync, mkdirSync, chmodSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { encodeFrame, encodeRequest, TYPE } from '#test/runner-client.ts'

const ROOT = join(import.meta.dirname, '../..')

const FUNCTIONS: Readonly<Record<string, { readonly file: string; readonly text: string }>> = {
  nodejs: { file: 'index.js', text: 'module.exports = (req, res) => res.send(req.body)\n' },
  'nodejs-native': {
    file: 'index.mjs',
    text: 'export default async (request) => new Response(await request.text())\n',
  },
  python3: { file: 'fn.py', text: 'def fn(input, headers):\n    return input\n' },
  'python3-native': {
    file: 'fn.py',
    text: 'def handle(request, context):\n    return request.body\n',
  },
  'python3-async': {
    file: 'fn.py',
    text: 'async def handle(request, context):\n    return request.body\n',
  },
  binary: { file: 'fn.sh', text: '#!/bin/sh\nexec cat\n' },
}

const { values } = parseArgs({
  options: {
    runtime: { type: 'string', default: 'nodejs' },
    'in-flight': { type: 'string', default: '1,32' },
    bytes: { type: 'string', default: '100' },
    seconds: { type: 'string', default: '3' },
    image: { type: 'string' },
    runner: { type: 'string' },
  },
})

const folder = mkdtempSync(join(tmpdir(), 'shoal-hop-'))
const { runtime } = values
const bytes = Number(values.bytes)
async function main(): Promise<void> {
  const echo = FUNCTIONS[runtime]
  if (echo === undefined) throw new RangeError(`no runtime ${runtime}`)
  chmodSync(folder, 0o755)
  mkdirSync(join(folder, 'fn'))
  writeFileSync(join(folder, 'fn', echo.file), echo.text, { mode: 0o755 })
  const server = createServer()
  server.listen({ path: join(folder, 's'), readableAll: true, writableAll: true })
  await once(server, 'listening')
  const connected = new Promise<Socket>((resolve) => {
    server.once('connection', resolve)
  })
  using runner = startRunner()
  const socket = await connected
  const dir = runner.inside ? '/shoal/fn' : join(folder, 'fn')
  await greet(socket, dir)
  await measure(socket, 32, 0.5)
  for (const inFlight of values['in-flight'].split(',').map(Number)) {
    const result = await measure(socket, inFlight, Number(values.seconds))
    const line = { runtime, where: runner.inside ? 'container' : 'process', bytes, ...result }
    process.stdout.write(`${JSON.stringify(line)}\n`)
  }
  socket.destroy()
  server.close()
}

interface Started extends Disposable {
  readonly inside: boolean
}

function startRunner(): Started {
  if (values.image !== undefined) {
    const id = execFileSync(
      'docker',
      [
        'run',
        '-d',
        '--rm',
        '--network=none',
        '--read-only',
        '--tmpfs=/tmp',
        `--volume=${folder}:/shoal:ro`,
        '--label=shoal-bench=hop',
        values.image,
      ],
      { encoding: 'utf8' },
    ).trim()
    return {
      inside: true,
      [Symbol.dispose]: () => void execFileSync('docker', ['rm', '-f', id], { stdio: 'ignore' }),
    }
  }
  const [program = '', ...rest] = commandLine()
  const child = spawn(program, rest, {
    env: { ...process.env, SHOAL_SOCKET: join(folder, 's'), SHOAL_HANDLER: 'bench' },
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  return { inside: false, [Symbol.dispose]: () => void child.kill('SIGKILL') }
}

function commandLine(): readonly string[] {
  if (runtime.startsWith('nodejs')) return [process.execPath, join(ROOT, 'runtimes/nodejs/main.ts')]
  if (runtime.startsWith('python3'))
    return ['python3', '-B', join(ROOT, 'runtimes/python3/main.py')]
  if (values.runner === undefined) throw new RangeError('binary needs --runner or --image')
  return [values.runner]
}

/** The opening of the connection, up to READY. */
async function greet(socket: Socket, dir: string): Promise<void> {
  const init = { fn: 'echo', release: 'r1', dir, env: {}, concurrency: 256, timeoutMs: 30_000 }
  const welcome = { protocol: 1, windowBytes: 1_048_576, payloadBytesMax: 1_114_112 }
  socket.write(encodeFrame(TYPE.WELCOME, 0, Buffer.from(JSON.stringify(welcome))))
  socket.write(encodeFrame(TYPE.INIT, 0, Buffer.from(JSON.stringify(init))))
  const ready = Promise.withResolvers<void>()
  let text = ''
  const onData = (data: Buffer): void => {
    text += data.toString('latin1')
    if (text.includes('"ok"')) ready.resolve()
  }
  socket.on('data', onData)
  await ready.promise
  socket.off('data', onData)
}

interface Measured {
  readonly inFlight: number
  readonly callsPerSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
}

/** Keeps `inFlight` calls going for `seconds`. */
async function measure(socket: Socket, inFlight: number, seconds: number): Promise<Measured> {
  const headers = [
    'content-type',
    'text/plain',
    'shoal-request-id',
    '01k9',
    'shoal-protocol',
    'http',
  ]
  const body = Buffer.alloc(bytes, 'x')
  const requests = Array.from({ length: inFlight }, (_, at) =>
    encodeRequest(at + 1, { headers, body }),
  )
  const sentAt = new Float64Array(inFlight + 1)
  const latencies: number[] = []
  let calls = 0
  const startedAt = performance.now()
  const endAt = startedAt + seconds * 1_000
  let open = inFlight
  const done = Promise.withResolvers<void>()
  const reader = new PrefixReader((id) => {
    const now = performance.now()
    calls += 1
    if ((calls & 15) === 0) latencies.push(now - (sentAt[id] ?? 0))
    if (now < endAt) {
      sentAt[id] = now
      return requests[id - 1]
    }
    open -= 1
    if (open === 0) done.resolve()
    return undefined
  })
  const onData = (data: Buffer): void => {
    const out = reader.push(data)
    if (out.length > 0) socket.write(out.length === 1 ? (out[0] ?? data) : Buffer.concat(out))
  }
  socket.on('data', onData)
  sentAt.fill(startedAt)
  socket.write(Buffer.concat(requests))
  await done.promise
  socket.off('data', onData)
  const tookS = (performance.now() - startedAt) / 1_000
  const sorted = latencies.toSorted((a, b) => a - b)
  const at = (share: number): number =>
    Number((sorted[Math.floor(sorted.length * share)] ?? 0).toFixed(3))
  return { inFlight, callsPerSecond: Math.round(calls / tookS), p50Ms: at(0.5), p99Ms: at(0.99) }
}

/** Skims answers: reads no more than their prefixes, so that the client costs little. */
class PrefixReader {
  readonly #answered: (id: number) => Buffer | undefined
  #prefix = Buffer.alloc(0)
  #skip = 0
  #ended = false
  #id = 0

  constructor(answered: (id: number) => Buffer | undefined) {
    this.#answered = answered
  }

  push(data: Buffer): Buffer[] {
    const out: Buffer[] = []
    let bytesNow = data
    if (this.#prefix.length > 0) {
      bytesNow = Buffer.concat([this.#prefix, data])
      this.#prefix = Buffer.alloc(0)
    }
    let from = 0
    while (from < bytesNow.length) {
      if (this.#skip > 0) {
        const skipped = Math.min(this.#skip, bytesNow.length - from)
        this.#skip -= skipped
        from += skipped
        if (this.#skip === 0) this.#over(out)
        continue
      }
      if (bytesNow.length - from < 12) {
        this.#prefix = Buffer.from(bytesNow.subarray(from))
        break
      }
      this.#begin(bytesNow, from)
      from += 12
      if (this.#skip === 0) this.#over(out)
    }
    return out
  }

  #begin(data: Buffer, at: number): void {
    if (data[at + 4] === TYPE.ERROR) {
      throw new Error(`call failed: ${data.toString('utf8', at + 13)}`)
    }
    this.#skip = data.readUInt32BE(at)
    this.#ended = ((data[at + 5] ?? 0) & 1) === 1
    this.#id = data.readUInt32BE(at + 8)
  }

  /** A whole frame has been read. */
  #over(out: Buffer[]): void {
    const next = this.#ended ? this.#answered(this.#id) : undefined
    if (next !== undefined) out.push(next)
  }
}

try {
  await main()
} finally {
  rmSync(folder, { recursive: true, force: true })
}
