/**
 * One way of a call for front-path.ts and coap.ts: `node test/bench/front-path-server.ts nodejs|python3 [image]`: the HTTP and the
 * CoAP front, the lane and frames of the agent before a real runner with an echo function, as a process or as a container of the
 * image. Prints its ports when it serves.
 */
import { execFileSync, spawn } from 'node:child_process'
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CoapProxy } from '#agent/proxy/coap/index.ts'
import { HttpProxy } from '#agent/proxy/http/index.ts'
import { CapturedLog } from '#test/captured-log.ts'
import { LANE_SETTINGS, LinkScope, runnerInit } from '#test/invoke-scope.ts'
import { runnerCommand } from '#test/runner-scope.ts'

const CONCURRENCY = 512

const FUNCTIONS = {
  nodejs: { 'index.js': 'module.exports = (req, res) => res.send(req.rawBody)\n' },
  python3: { 'fn.py': 'def handle(request, context):\n    return request.body\n' },
} as const

function isRuntime(name: string | undefined): name is keyof typeof FUNCTIONS {
  return name !== undefined && name in FUNCTIONS
}

const [, , runtime, image] = process.argv
if (!isRuntime(runtime)) throw new Error('usage: front-path-server.ts nodejs|python3 [image]')
const scope = await LinkScope.open()
const folder = join(scope.folder, 'fn')
await chmod(scope.folder, 0o755)
await chmod(scope.socketPath, 0o666)
await mkdir(folder)
for (const [file, text] of Object.entries(FUNCTIONS[runtime])) {
  await writeFile(join(folder, file), text)
}
const stopRunner = await startRunner(runtime)
const link = await scope.link()
const dir = image === undefined ? folder : '/shoal/fn'
await link.init(runnerInit({ dir, concurrency: CONCURRENCY, timeoutMs: 30_000 }))
const settings = { ...LANE_SETTINGS, concurrency: CONCURRENCY, queue: 1_024, timeoutMs: 30_000 }
scope.router.ensure('echo', settings).attach(link, 'r1')
const options = {
  host: '::',
  port: 0,
  invoker: scope.router,
  bodyBytesMax: 8 * 1024 * 1024,
  log: new CapturedLog(),
}
const { port } = await HttpProxy.listen(options)
const { port: coapPort } = await CoapProxy.listen(options)

process.once('SIGTERM', () => {
  stopRunner()
  void scope[Symbol.asyncDispose]().then(() => process.exit(0))
})
process.stdout.write(`${JSON.stringify({ msg: 'ready', port, coapPort })}\n`)

async function startRunner(name: keyof typeof FUNCTIONS): Promise<() => void> {
  const env = { SHOAL_SOCKET: scope.socketPath, SHOAL_HANDLER: scope.handler }
  if (image === undefined) {
    const [program = '', ...rest] = await runnerCommand(name)
    const child = spawn(program, rest, {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    return () => child.kill('SIGKILL')
  }
  const args = ['run', '-d', '--rm', '--network=none', '--read-only', '--tmpfs=/tmp']
  const mount = [`--volume=${scope.folder}:/shoal`, '-e', `SHOAL_HANDLER=${scope.handler}`]
  const inside = [...mount, '-e', 'SHOAL_SOCKET=/shoal/s', '--label=shoal-bench=front-path', image]
  const id = execFileSync('docker', [...args, ...inside], { encoding: 'utf8' }).trim()
  return () => void execFileSync('docker', ['rm', '-f', id], { stdio: 'ignore' })
}
