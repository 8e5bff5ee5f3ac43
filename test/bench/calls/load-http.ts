import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import autocannon from 'autocannon'
import type { LoadOptions, Round } from './load.ts'

const WRK = '/usr/bin/wrk'

/** The load generator in use: `wrk` takes less of the two cores from the contestants than one written in JavaScript. */
export const httpTool = existsSync(WRK) ? 'wrk' : 'autocannon'

/** POSTs `payload` to `path` over `inFlight` keep-alive connections. */
export async function loadHttp(options: LoadOptions & { readonly path: string }): Promise<Round> {
  return httpTool === 'wrk' ? withWrk(options) : withAutocannon(options)
}

const LUA_TAIL = `
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('\\nJSON {"calls":%d,"us":%d,"p50":%d,"p99":%d,"errors":%d}\\n', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
`

async function withWrk(options: LoadOptions & { readonly path: string }): Promise<Round> {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-bench-'))
  try {
    const script = join(folder, 'post.lua')
    const bytes = [...options.payload].map((byte) => `\\${byte}`).join('')
    const head = 'wrk.method = "POST"\nwrk.headers["content-type"] = "application/octet-stream"\n'
    const body =
      options.payload.length > 1024
        ? `wrk.body = string.rep("x", ${options.payload.length})\n`
        : `wrk.body = "${bytes}"\n`
    await writeFile(script, head + body + LUA_TAIL)
    const url = `http://127.0.0.1:${options.port}${options.path}`
    const args = [
      '-t1',
      `-c${options.inFlight}`,
      `-d${options.durationMs / 1000}s`,
      '-s',
      script,
      url,
    ]
    const { stdout } = await promisify(execFile)(WRK, args)
    const json = stdout.split('\n').find((line) => line.startsWith('JSON '))
    if (json === undefined) throw new Error(`wrk printed no result:\n${stdout}`)
    const found: { calls: number; us: number; p50: number; p99: number; errors: number } =
      JSON.parse(json.slice(5))
    return {
      perSecond: Math.round((found.calls * 1e6) / found.us),
      p50Ms: found.p50 / 1000,
      p99Ms: found.p99 / 1000,
      errors: found.errors,
    }
  } finally {
    await rm(folder, { recursive: true })
  }
}

async function withAutocannon(options: LoadOptions & { readonly path: string }): Promise<Round> {
  const found = await autocannon({
    url: `http://127.0.0.1:${options.port}${options.path}`,
    method: 'POST',
    body: options.payload,
    connections: options.inFlight,
    duration: options.durationMs / 1000,
  })
  return {
    perSecond: Math.round(found.requests.average),
    p50Ms: found.latency.p50,
    p99Ms: found.latency.p99,
    errors: found.errors + found.non2xx,
  }
}
