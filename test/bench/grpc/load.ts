import { execFile, spawnSync } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import type { ClientHttp2Session } from 'node:http2'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { http2Call, http2Client } from '#test/grpc-http2.ts'
import { quantile, type Round, Samples } from '../calls/load.ts'
import { PATHS, type Service } from './messages.ts'

export const CONNECTIONS = 8
export const STREAMS = 4

interface Load {
  readonly port: number
  readonly service: Service
  readonly frame: Buffer
  readonly seconds: number
}

const hasH2load = spawnSync('h2load', ['--version']).error === undefined
/** What makes the load: nghttp2's own program where it is installed. */
export const loadTool = hasH2load ? 'h2load' : 'node:http2'

/** Unary calls over 8 connections with 4 streams each. @throws Error when a first call is not answered with status 0 */
export async function loadGrpc(load: Load): Promise<Round> {
  await using session = await http2Client(load.port)
  const first = await http2Call(session, { ':path': PATHS[load.service] }, [load.frame])
  if (first.code !== 0) throw new Error(`status ${first.code}: ${first.message}`)
  return await (hasH2load ? byH2load(load) : byNode(load))
}

async function byH2load({ port, service, frame, seconds }: Load): Promise<Round> {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-bench-'))
  try {
    const body = join(folder, 'body')
    const log = join(folder, 'log')
    await writeFile(body, frame)
    const args = [`-D${seconds}`, `-c${CONNECTIONS}`, `-m${STREAMS}`, '-t1', '-d', body]
    args.push('-H', 'content-type: application/grpc', '-H', 'te: trailers', `--log-file=${log}`)
    args.push(`http://127.0.0.1:${port}${PATHS[service]}`)
    const { stdout } = await promisify(execFile)('h2load', args)
    const numbers = /(\d+) succeeded, (\d+) failed, (\d+) errored/.exec(stdout)
    if (numbers === null) throw new Error(`h2load printed no result:\n${stdout}`)
    // A line a call: when it began, its HTTP status, how many microseconds it took.
    const lines = (await readFile(log, 'latin1')).trimEnd().split('\n')
    const micros = Float64Array.from(lines, (line) => Number(line.split('\t')[2])).toSorted()
    return {
      perSecond: Math.round(Number(numbers[1]) / seconds),
      p50Ms: quantile(micros, 0.5) / 1_000,
      p99Ms: quantile(micros, 0.99) / 1_000,
      errors: Number(numbers[2]) + Number(numbers[3]),
    }
  } finally {
    await rm(folder, { recursive: true })
  }
}

async function byNode({ port, service, frame, seconds }: Load): Promise<Round> {
  const samples = new Samples()
  const endMs = performance.now() + seconds * 1_000
  let errors = 0
  const lane = async (session: ClientHttp2Session): Promise<void> => {
    while (performance.now() < endMs) {
      const sentMs = performance.now()
      const { code } = await http2Call(session, { ':path': PATHS[service] }, [frame])
      if (code === 0) samples.add(performance.now() - sentMs)
      else errors += 1
    }
  }
  const connections = Array.from({ length: CONNECTIONS }, async () => {
    await using session = await http2Client(port)
    await Promise.all(Array.from({ length: STREAMS }, () => lane(session)))
  })
  await Promise.all(connections)
  return samples.round(seconds * 1_000, errors)
}
