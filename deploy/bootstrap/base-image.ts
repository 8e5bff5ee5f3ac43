import { createReadStream } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type Docker from 'dockerode'
import type { Apt } from './apt.ts'
import { findProgram, runCommand } from '../command.ts'
import { drainProgress } from './progress.ts'
import type { Step } from './steps.ts'

const SUITE = 'bookworm'
const PUBLIC_IMAGE = `debian:${SUITE}-slim`
/** The base image under our own name, wherever it came from. */
const BASE_IMAGE = `shoal/base:${SUITE}`
/** A registry that has not begun to answer by then is not there; one that has may take its time. */
const PULL_FIRST_ANSWER_MS = 8_000
const PULL_MS = 180_000

export interface BaseImageOptions {
  readonly docker: Docker
  readonly apt: Apt
  /** For the pulls and downloads of mmdebstrap. */
  readonly proxy: Readonly<Record<string, string>>
}

/** Id of the base image, when there is one. */
export async function baseImageId(docker: Docker): Promise<string | undefined> {
  try {
    return (await docker.getImage(BASE_IMAGE).inspect()).Id
  } catch (error) {
    if (error instanceof Error && 'statusCode' in error && error.statusCode === 404)
      return undefined
    throw error
  }
}

/** The base image as a step. */
export function baseImageStep(options: BaseImageOptions): Step {
  return {
    name: 'base image',
    present: async () => {
      const id = await baseImageId(options.docker)
      return id === undefined ? undefined : `${BASE_IMAGE} (${id.slice(7, 19)})`
    },
    install: (signal) => makeBaseImage(options, signal),
    hint: `By hand: docker pull ${PUBLIC_IMAGE} && docker tag ${PUBLIC_IMAGE} ${BASE_IMAGE}`,
  }
}

/** Gets Debian slim from a registry, or makes the like of it from Debian's packages. Resolves to what was done. */
async function makeBaseImage(options: BaseImageOptions, signal: AbortSignal): Promise<string> {
  let why: string
  try {
    await pullPublic(options.docker, signal)
    return `${PUBLIC_IMAGE} pulled`
  } catch (error) {
    signal.throwIfAborted()
    why = error instanceof Error ? (error.message.split('\n').at(-1) ?? '') : String(error)
  }
  if (findProgram('mmdebstrap') === undefined) await options.apt.install(['mmdebstrap'], signal)
  await importBootstrapped(options, signal)
  return `made from Debian's packages (${PUBLIC_IMAGE} cannot be pulled: ${why.slice(0, 120)})`
}

async function pullPublic(docker: Docker, signal: AbortSignal): Promise<void> {
  const present = await docker
    .getImage(PUBLIC_IMAGE)
    .inspect()
    .catch(() => undefined)
  if (present === undefined) {
    const answered = new AbortController()
    const timer = setTimeout(
      () =>
        answered.abort(
          new Error(`no answer from the registry in ${PULL_FIRST_ANSWER_MS / 1000} s`),
        ),
      PULL_FIRST_ANSWER_MS,
    )
    const abortSignal = AbortSignal.any([signal, answered.signal, AbortSignal.timeout(PULL_MS)])
    try {
      const stream = await docker.pull(PUBLIC_IMAGE, { abortSignal })
      await drainProgress(stream, () => clearTimeout(timer))
    } catch (error) {
      throw answered.signal.aborted ? answered.signal.reason : error
    } finally {
      clearTimeout(timer)
    }
  }
  await docker.getImage(PUBLIC_IMAGE).tag({ repo: 'shoal/base', tag: SUITE })
}

/** `mmdebstrap --variant=minbase` into a tar, less what a container never reads, imported as an image. */
async function importBootstrapped(
  { docker, proxy }: BaseImageOptions,
  signal: AbortSignal,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-base-'))
  try {
    const file = join(folder, 'base.tar')
    const unneeded = [
      '/usr/share/man/*',
      '/usr/share/locale/*',
      '/usr/share/info/*',
      '/usr/share/doc/*',
    ]
    const args = [
      '--variant=minbase',
      '--include=ca-certificates',
      ...unneeded.map((path) => `--dpkgopt=path-exclude=${path}`),
      '--dpkgopt=path-include=/usr/share/doc/*/copyright',
      SUITE,
      file,
      ...(await mirrors()),
    ]
    await runCommand('mmdebstrap', args, { env: proxy }, signal)
    const stream = await docker.importImage(createReadStream(file), {
      repo: 'shoal/base',
      tag: SUITE,
      changes: ['CMD ["/bin/bash"]', 'LABEL shoal.image=base'],
      abortSignal: signal,
    })
    await drainProgress(stream, () => undefined)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** The machine's own package sources when it runs the same Debian (they may be a site's mirror), else Debian's. */
async function mirrors(): Promise<readonly string[]> {
  const release = await readFile('/etc/os-release', 'utf8').catch(() => '')
  if (release.includes(`VERSION_CODENAME=${SUITE}`)) {
    for (const file of ['/etc/apt/sources.list.d/debian.sources', '/etc/apt/sources.list']) {
      const text = await readFile(file, 'utf8').catch(() => '')
      if (/^\s*(deb |URIs:)/m.test(text)) return [file]
    }
  }
  return ['http://deb.debian.org/debian']
}
