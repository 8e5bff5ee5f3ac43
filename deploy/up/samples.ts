import { createHash } from 'node:crypto'
import { readFile, readdir, rename, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { pack } from 'tar-stream'
import { Type, type Static } from 'typebox'
import { Check } from 'typebox/value'
import type { ApiClient } from '#controller/api-client/index.ts'
import type { Rollout } from '#shared/schemas/api.ts'
import type { Runtime } from '#shared/schemas/names.ts'
import type { Output } from '../output.ts'

const FOLDER = join(import.meta.dirname, '../samples')

interface Sample {
  readonly name: string
  readonly runtime: Runtime
}

export const SAMPLES: readonly Sample[] = [
  { name: 'sieve', runtime: 'nodejs' },
  { name: 'echo', runtime: 'python3' },
  { name: 'hello', runtime: 'binary' },
]

/** `samples.json` in the data folder: what we deployed, so that a function that a person has changed since is left alone. */
const Deployed = Type.Record(
  Type.String(),
  Type.Object({ source: Type.String(), release: Type.String() }),
)
type Deployed = Static<typeof Deployed>

export interface SamplesOptions {
  readonly data: string
  readonly client: ApiClient
  readonly out: Output
}

/** Deploys the samples that are not there yet or have changed in the checkout; a person's own function of that name stays. */
export async function deploySamples(options: SamplesOptions, signal: AbortSignal): Promise<void> {
  const { data, client, out } = options
  const file = join(data, 'samples.json')
  const deployed = await readDeployed(file)
  const present = new Map((await client.functions(signal)).map((one) => [one.name, one]))
  const work = SAMPLES.map(async ({ name, runtime }) => {
    const { tar, digest } = await packSample(name)
    const before = present.get(name)
    const ours = deployed[name]
    // One that never was rolled out is what a start that was cut off has left, not a person's.
    if (before?.settings !== undefined) {
      if (before.latestRelease !== ours?.release) return
      if (ours.source === digest && before.placements.length > 0) return
    }
    const source = { kind: 'archive', type: 'application/x-tar', body: tar } as const
    const { release } = await client.createRelease(name, { source, runtime }, ignore, signal)
    deployed[name] = { source: digest, release: release.id }
    const rollout = await rollOut(client, name, release.id, signal)
    if (rollout.state !== 'done') {
      const reasons = rollout.nodes.flatMap(({ reason }) => (reason ? [reason.message] : []))
      out.line(`[fail] sample ${name}: rollout ${rollout.state}. ${reasons.join('; ')}`)
      return
    }
    out.line(`[done] sample ${name} (${runtime}) deployed`)
  })
  const results = await Promise.allSettled(work)
  await writeDeployed(file, deployed)
  signal.throwIfAborted()
  for (const [index, result] of results.entries()) {
    if (result.status === 'fulfilled') continue
    const why = result.reason instanceof Error ? result.reason.message : String(result.reason)
    out.line(`[fail] sample ${SAMPLES[index]?.name}: ${why}`)
  }
}

/** The build's output: its last lines come with the failure. */
function ignore(): void {}

/** Puts a release on all nodes; resolves to how that ended. */
async function rollOut(
  client: ApiClient,
  fn: string,
  release: string,
  signal: AbortSignal,
): Promise<Rollout> {
  let last = await client.createRollout({ function: fn, release }, signal)
  for await (const snapshot of client.watchRollout(last.id, signal)) last = snapshot
  return last
}

/** The same bytes for the same files. */
async function packSample(name: string): Promise<{ tar: Buffer; digest: string }> {
  const folder = join(FOLDER, name)
  const tar = pack()
  const files = (await readdir(folder)).toSorted()
  for (const file of files) {
    const { mode } = await stat(join(folder, file))
    tar.entry(
      { name: file, mode: mode & 0o111 ? 0o755 : 0o644, mtime: new Date(0) },
      await readFile(join(folder, file)),
    )
  }
  tar.finalize()
  const bytes = await buffer(tar)
  return { tar: bytes, digest: createHash('sha256').update(bytes).digest('hex') }
}

async function readDeployed(file: string): Promise<Deployed> {
  try {
    const value: unknown = JSON.parse(await readFile(file, 'utf8'))
    return Check(Deployed, value) ? value : {}
  } catch {
    return {}
  }
}

async function writeDeployed(file: string, deployed: Deployed): Promise<void> {
  await writeFile(`${file}.new`, JSON.stringify(deployed))
  await rename(`${file}.new`, file)
}
