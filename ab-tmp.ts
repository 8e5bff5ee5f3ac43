const root = process.argv[2]!
process.chdir(root)
const { RunnerProcess } = await import(root + '/test/lib/runner-process.ts')
const { LANE_SETTINGS, invocation } = await import(root + '/test/lib/invoke-scope.ts')
await using runner = await RunnerProcess.start('module.exports = (req, res) => res.send(req.rawBody)')
const { router } = runner.scope
router.ensure('echo', { ...LANE_SETTINGS, concurrency: 64, queue: 256 }).attach(runner.link, 'r1')
const inv = invocation({ body: Buffer.alloc(100, 'x') })
let n = 0
let stop = false
const loop = (): void => { if (!stop) router.start(inv, undefined, () => { n += 1; loop() }, (e: unknown) => { throw e }) }
for (let i = 0; i < 32; i += 1) loop()
await new Promise((r) => setTimeout(r, 700))
n = 0
const c0 = process.cpuUsage()
await new Promise((r) => setTimeout(r, 2500))
stop = true
const c = process.cpuUsage(c0)
console.log(JSON.stringify({ callsPerS: Math.round(n / 2.5), cpuUsPerCall: ((c.user + c.system) / n).toFixed(3) }))
