/**
 * The fronts as an agent has them, for workers.ts: `node test/bench/workers-server.ts <workers>`; the router and frames before a real Node
 * runner with an echo function as a process. Prints its ports and its processes when it serves.
 */
import { pino } from 'pino'
import { OwnFronts, WorkerFronts } from '#agent/fronts/index.ts'
import { LANE_SETTINGS } from '#test/invoke-scope.ts'
import { RunnerProcess } from '#test/runner-process.ts'

const workers = Number(process.argv[2] ?? 1)
const runner = await RunnerProcess.start('module.exports = (req, res) => res.send(req.rawBody)\n')
const { router } = runner.scope
const settings = { ...LANE_SETTINGS, concurrency: 512, queue: 1_024, timeoutMs: 30_000 }
router.ensure('echo', settings).attach(runner.link, 'r1')
const options = {
  host: '127.0.0.1',
  ports: { http: 0, coap: 0, grpc: 0 },
  bodyBytesMax: 8 * 1024 * 1024,
  invoker: router,
  log: pino({ level: 'silent' }),
}
const fronts =
  workers === 1 ? await OwnFronts.open(options) : await WorkerFronts.open({ ...options, workers })
process.once('SIGTERM', () => {
  void fronts
    .close()
    .then(() => runner[Symbol.asyncDispose]())
    .then(() => process.exit(0))
})
const { ports, pids } = fronts
process.stdout.write(`${JSON.stringify({ msg: 'ready', ports, pids, runner: runner.child.pid })}\n`)
