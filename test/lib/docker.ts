import { randomUUID } from 'node:crypto'
import { Readable } from 'node:stream'
import Docker from 'dockerode'
import { pack } from 'tar-stream'

/** The label key on everything that tests create on the engine; the leak check looks for it. */
export const TEST_LABEL = 'shoal.test'

/** How the value of that label begins for everything that this run of `npm test` creates. */
export const TEST_RUN_PREFIX = ['shoal-test', process.env['SHOAL_TEST_RUN'], '']
  .filter((part) => part !== undefined)
  .join('-')

/** The values of that label in this process whose scopes have not been disposed. */
export const openRuns = new Set<string>()

export interface DockerScope extends AsyncDisposable {
  readonly docker: Docker
  /** Unique to this scope: the value of its label, and a prefix for names and tags. */
  readonly run: string
  /** `{ 'shoal.test': run }`: goes on everything the test creates. */
  readonly labels: Readonly<Record<string, string>>
  /** An image that holds nothing but one file: no network, no registry, a few milliseconds. */
  emptyImage(): Promise<string>
  /** Also remove, at the end, what carries this label (e.g. `shoal=<installation id>` that the product puts on its own). */
  alsoRemove(label: string): void
}

/** A corner of the real engine for one test. Disposing removes what carries its labels, only that. */
export function dockerScope(docker = new Docker()): DockerScope {
  const run = `${TEST_RUN_PREFIX}${randomUUID().slice(0, 8)}`
  const removed = [`${TEST_LABEL}=${run}`]
  openRuns.add(run)
  return {
    docker,
    run,
    labels: { [TEST_LABEL]: run },
    async emptyImage() {
      const files = pack()
      files.entry({ name: 'Dockerfile' }, 'FROM scratch\nCOPY marker /\n')
      files.entry({ name: 'marker' }, run)
      files.finalize()
      const stream = await docker.buildImage(Readable.from(files), {
        t: `${run}:empty`,
        labels: { [TEST_LABEL]: run },
      })
      await readProgress(stream)
      return `${run}:empty`
    },
    alsoRemove(label) {
      removed.push(label)
    },
    async [Symbol.asyncDispose]() {
      for (const label of removed) await removeLabelled(docker, label)
      openRuns.delete(run)
    },
  }
}

/** Removes containers, networks, volumes and images that carry `label` (`key` or `key=value`). */
async function removeLabelled(docker: Docker, label: string): Promise<void> {
  const filters = { label: [label] }
  for (const { Id } of await docker.listContainers({ all: true, filters })) {
    await unlessGone(docker.getContainer(Id).remove({ force: true, v: true }))
  }
  for (const { Id } of await docker.listNetworks({ filters })) {
    await unlessGone(docker.getNetwork(Id).remove())
  }
  const { Volumes: volumes } = await docker.listVolumes({ filters })
  for (const { Name } of volumes) await unlessGone(docker.getVolume(Name).remove())
  for (const { Id } of await docker.listImages({ filters })) {
    await unlessGone(docker.getImage(Id).remove({ force: true }))
  }
}

async function unlessGone(call: Promise<unknown>): Promise<void> {
  try {
    await call
  } catch (error) {
    const status = error instanceof Error && 'statusCode' in error ? error.statusCode : 0
    // 404: gone; 409: its removal is under way already.
    if (status !== 404 && status !== 409) throw error
  }
}

/** Reads an engine's progress stream to its end; an `error` line fails, though the engine answered 200. */
async function readProgress(stream: NodeJS.ReadableStream): Promise<void> {
  let text = ''
  for await (const chunk of stream) text += String(chunk)
  for (const line of text.split('\n').filter((one) => one.trim() !== '')) {
    const event: { error?: unknown } = JSON.parse(line)
    if (typeof event.error === 'string') throw new Error(event.error)
  }
}
