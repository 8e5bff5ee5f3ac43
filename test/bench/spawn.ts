/**
 * A process per call, beside the rate at which the host can start the same program at all. Prints JSON.
 *
 *     node test/bench/spawn.ts [--seconds 2] [--rounds 5] [--in-flight 32] [--cpus 1] [--image <id>] [--runner <file>]
 *
 * One container with a handler's limits: calls go through the agent's link to the runner in it, and between the rounds small
 * spawners (`spawn/`, in C and in Go, made with the compilers on PATH) start the same program inside the same container.
 * `ofBest` is our rate by that of the faster spawner that does the same input and output; `ofNull` by that of the one in C with
 * no input and output at all. `--runner` puts a runner that was built by hand into the image's place.
 */
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { Invocation, LaneSettings } from '#agent/invoke/index.ts'
import { testImages } from '#test/images.ts'
import { LANE_SETTINGS, LinkScope, invocation, runnerInit } from '#test/invoke-scope.ts'
import { onPath } from '#test/runner-scope.ts'
import { median } from './calls/load.ts'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '5' },
    'in-flight': { type: 'string', default: '32' },
    cpus: { type: 'string', default: '1' },
    image: { type: 'string' },
    runner: { type: 'string' },
  },
})

const SECONDS = Number(values.seconds)
const ROUNDS = Number(values.rounds)
const IN_FLIGHT = Number(values['in-flight'])
/** As many as the runner starts at once. */
const AT_ONCE = 2 * cpus().length
const BODY = Buffer.alloc(100, 'x')
const SOURCES = join(import.meta.dirname, 'spawn')
const SETTINGS: LaneSettings = { ...LANE_SETTINGS, concurrency: 64, queue: 0 }

const STAYS = `#!/bin/sh
echo ready
while read -r id bytes about; do
  body=$(head -c "$bytes")
  printf '%s %s\\n%s' "$id" "$bytes" "$body"
done
`

interface Program {
  readonly name: string
  /** What the spawners start; absent: the program stays alive, and there is nothing to compare with. */
  readonly started?: string
  place(folder: string): void
}

/** All of them give the body back. */
const PROGRAMS: readonly Program[] = [
  {
    name: 'sh script',
    started: '/shoal/fn/fn.sh',
    place: (folder) => writeScript(folder, '#!/bin/sh\nexec cat\n'),
  },
  {
    name: 'static program',
    started: '/shoal/fn/cat',
    place: (folder) => symlinkSync('/usr/local/busybox/cat', join(folder, 'cat')),
  },
  {
    name: 'sh script that stays',
    place: (folder) => {
      writeScript(folder, STAYS)
      writeFileSync(join(folder, 'shoal.json'), '{"stay": {}}')
    },
  },
]

function writeScript(folder: string, text: string): void {
  writeFileSync(join(folder, 'fn.sh'), text, { mode: 0o755 })
}

interface Handler extends AsyncDisposable {
  /** Runs calls for a while, and resolves to how many were answered per second. */
  calls(): Promise<number>
  /** Starts per second by one of the spawners. */
  spawns(spawner: string, mode: 'pipes' | 'null'): number
}

async function startHandler(program: Program, tools: string): Promise<Handler> {
  await using opening = new AsyncDisposableStack()
  const scope = opening.use(await LinkScope.open())
  const folder = join(scope.folder, 'fn')
  mkdirSync(folder)
  program.place(folder)
  chmodSync(scope.folder, 0o755)
  const image = values.image ?? testImages().docker?.binary?.run
  if (image === undefined) throw new Error('no image of the binary runtime: run the bootstrap')
  const id = docker(
    ['run', '--detach', '--network=none', '--read-only', '--tmpfs=/tmp:exec', '--cap-drop=ALL'],
    ['--pids-limit=128', '--memory=128m', `--cpus=${values.cpus}`],
    ['--security-opt=no-new-privileges', '--label=shoal-bench=spawn'],
    [`--volume=${scope.folder}:/shoal:ro`, `--volume=${tools}:/bench:ro`],
    values.runner === undefined ? [] : [`--volume=${values.runner}:/runner/runner:ro`],
    [`--env=SHOAL_HANDLER=${scope.handler}`, image],
  )
  opening.defer(() => void docker(['rm', '--force', id]))
  const link = await scope.link()
  await link.init(runnerInit({ concurrency: SETTINGS.concurrency }))
  scope.router.ensure('echo', SETTINGS).attach(link, 'r1-0a1b2c3d')
  const opened = opening.move()
  const { started = '' } = program
  return {
    calls: () => callsPerSecond(scope),
    spawns: (spawner, mode) =>
      Number(
        docker(['exec', id, `/bench/${spawner}`, `${AT_ONCE}`, values.seconds, mode, started]),
      ),
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  }
}

function docker(...args: readonly (readonly string[])[]): string {
  return execFileSync('docker', args.flat(), { encoding: 'utf8' }).trim()
}

/** Keeps the calls in flight going; every answer starts the next call. */
function callsPerSecond(scope: LinkScope): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  const call: Invocation = invocation({ body: BODY })
  const startedAt = performance.now()
  let calls = 0
  let open = 0
  const next = (): void => {
    scope.router.start(
      call,
      undefined,
      ({ body }) => {
        if (!Buffer.isBuffer(body) || !body.equals(BODY)) return reject(new Error('another body'))
        calls += 1
        const tookMs = performance.now() - startedAt
        if (tookMs < SECONDS * 1_000) return next()
        open -= 1
        if (open === 0) resolve((calls * 1_000) / tookMs)
      },
      reject,
    )
  }
  for (; open < IN_FLIGHT; open += 1) next()
  return promise
}

/** Builds what the compilers on PATH can build, into `folder`; returns their names. */
function buildSpawners(folder: string): readonly string[] {
  cpSync(SOURCES, folder, { recursive: true })
  const cc = onPath('cc')
  const go = onPath('go')
  const options = { cwd: folder, stdio: 'inherit' } as const
  if (cc !== undefined)
    execFileSync(cc, ['-O2', '-static', '-o', 'c', 'spawn.c', '-pthread'], options)
  if (go !== undefined) {
    const env = { ...process.env, CGO_ENABLED: '0', GO111MODULE: 'off' }
    execFileSync(go, ['build', '-o', 'go', 'spawn.go'], { ...options, env })
  }
  const built = [...(cc === undefined ? [] : ['c']), ...(go === undefined ? [] : ['go'])]
  if (built.length === 0) throw new Error('neither cc nor go on PATH: nothing to compare with')
  return built
}

async function measure(program: Program, tools: string, built: readonly string[]) {
  await using handler = await startHandler(program, tools)
  const spawners = program.started === undefined ? [] : built
  const contestants = new Map<string, () => number | Promise<number>>([
    ['calls', () => handler.calls()],
    ...spawners.map((name) => [name, () => handler.spawns(name, 'pipes')] as const),
    ...(spawners.includes('c') ? [['c-null', () => handler.spawns('c', 'null')] as const] : []),
  ])
  await handler.calls()
  const rates = new Map<string, number[]>([...contestants.keys()].map((name) => [name, []]))
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [name, run] of contestants) rates.get(name)?.push(Math.round(await run()))
  }
  const middle = (name: string): number => median(rates.get(name) ?? [0])
  const share = (of: number): number => Number((middle('calls') / of).toFixed(3))
  return {
    program: program.name,
    perSecond: Object.fromEntries(
      [...rates].map(([name, all]) => [
        name,
        { median: middle(name), min: Math.min(...all), max: Math.max(...all) },
      ]),
    ),
    ...(spawners.length > 0 ? { ofBest: share(Math.max(...spawners.map(middle))) } : {}),
    ...(spawners.includes('c') ? { ofNull: share(middle('c-null')) } : {}),
  }
}

const tools = mkdtempSync(join(tmpdir(), 'shoal-spawn-'))
try {
  chmodSync(tools, 0o755)
  const spawners = buildSpawners(tools)
  const programs = []
  for (const program of PROGRAMS) programs.push(await measure(program, tools, spawners))
  const [cpu] = cpus()
  const machine = { cpu: cpu?.model, cores: cpus().length, node: process.version }
  const settings = { cpus: Number(values.cpus), inFlight: IN_FLIGHT, startsAtOnce: AT_ONCE }
  process.stdout.write(`${JSON.stringify({ machine, settings, programs }, undefined, 2)}\n`)
} finally {
  rmSync(tools, { recursive: true, force: true })
}
