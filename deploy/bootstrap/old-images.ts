import type Docker from 'dockerode'

const DAY_MS = 86_400_000

export interface OldImagesOptions {
  readonly docker: Docker
  /** What our repositories begin with, e.g. `shoal/runtime-`. */
  readonly prefix: string
  /** Ids of those in use by this checkout. */
  readonly current: ReadonlySet<string>
  /** What a set-up has used in this time stays; default 7 days: another checkout or installation may be its user. */
  readonly unusedMs?: number
  readonly nowMs: number
}

interface Found {
  readonly tag: string
  readonly id: string
  readonly createdMs: number
  readonly usedMs: number
}

/**
 * Removes runtime images of earlier versions. An image goes only when it carries our label and our name, no container is made of it,
 * no set-up has used it for a week (`markUsed`), and it is neither a current one nor the newest before that of its kind.
 *
 * @returns the tags that are gone
 */
export async function removeOldImages(options: OldImagesOptions): Promise<readonly string[]> {
  const { docker, prefix, current, unusedMs = 7 * DAY_MS, nowMs } = options
  const images = await docker.listImages({ filters: { label: ['shoal.image=runtime'] } })
  const containers = await docker.listContainers({ all: true })
  const used = new Set(containers.map(({ ImageID }) => ImageID))
  const found: Found[] = []
  for (const { Id: id, RepoTags } of images) {
    const tags = (RepoTags ?? []).filter((tag) => tag.startsWith(prefix))
    // The list gives whole seconds: two versions may be made in one.
    const times = tags.length > 0 ? await timesOf(docker, id) : undefined
    if (times !== undefined) found.push(...tags.map((tag) => ({ tag, id, ...times })))
  }
  // `shoal/runtime-nodejs:run-...`: one line of versions per runtime and kind.
  const lines = Map.groupBy(found, ({ tag }) => tag.slice(0, tag.lastIndexOf('-')))
  const removed: string[] = []
  for (const versions of lines.values()) {
    const earlier = versions
      .filter(({ id }) => !current.has(id))
      .toSorted((a, b) => b.createdMs - a.createdMs)
      .slice(1)
    for (const { tag, id, usedMs } of earlier) {
      if (used.has(id) || nowMs - usedMs < unusedMs) continue
      // By its tag: what carries another name as well keeps that.
      await docker.getImage(tag).remove()
      removed.push(tag)
    }
  }
  return removed
}

/** The engine notes when an image was given a name; giving it the one that it has leaves everything else as it is. */
export async function markUsed(docker: Docker, tag: string): Promise<void> {
  const [repo = '', name = ''] = tag.split(':')
  await docker.getImage(tag).tag({ repo, tag: name })
}

async function timesOf(docker: Docker, id: string): Promise<Pick<Found, 'createdMs' | 'usedMs'>> {
  const { Created, Metadata }: { Created: string; Metadata?: { LastTagTime?: string } } =
    await docker.getImage(id).inspect()
  const createdMs = Date.parse(Created)
  return { createdMs, usedMs: Math.max(createdMs, Date.parse(Metadata?.LastTagTime ?? '') || 0) }
}

/** Reads the lines of the engine's builder for the images that it made, stage by stage. */
export class BuildStages {
  /** Of each stage, oldest first. */
  readonly #stages: string[][] = []
  #cached = false

  line(text: string): void {
    for (const line of text.split('\n')) {
      if (/^Step \d+\/\d+ : FROM\b/.test(line)) {
        this.#stages.push([])
        // What follows is the image that the stage begins with.
        this.#cached = true
      } else if (line.startsWith('Step ')) this.#cached = false
      else if (line.includes('---> Using cache')) this.#cached = true
      const id = /^ ---> ([0-9a-f]{12,64})$/.exec(line)?.[1]
      if (id !== undefined && !this.#cached) this.#stages.at(-1)?.push(id)
    }
  }

  /** What this build made on its way and the result does not stand on, newest first. */
  get leftovers(): readonly string[] {
    return this.#stages.slice(0, -1).flat().toReversed()
  }
}

/** Removes exactly these; one that something stands on by now stays. Resolves to how many went. */
export async function removeLeftovers(docker: Docker, ids: readonly string[]): Promise<number> {
  let removed = 0
  for (const id of ids) {
    try {
      const image = docker.getImage(id)
      const { RepoTags } = await image.inspect()
      if (RepoTags.length > 0) continue
      await image.remove({ noprune: true })
      removed += 1
    } catch (error) {
      const status = error instanceof Error && 'statusCode' in error ? error.statusCode : 0
      if (status !== 404 && status !== 409) throw error
    }
  }
  return removed
}
