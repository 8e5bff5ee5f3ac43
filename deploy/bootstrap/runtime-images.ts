import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type Docker from 'dockerode'
import { pack, type Pack } from 'tar-stream'
import { runtimeImagePlan, type ImageFile, type RuntimeImage } from '#runtimes/images.ts'
import type { Images } from '#shared/schemas/images.ts'
import type { DeployConfig } from '../config.ts'
import { FileHashes } from './file-hashes.ts'
import { BuildStages, markUsed, removeLeftovers } from './old-images.ts'
import { drainProgress } from './progress.ts'
import type { Step } from './steps.ts'

/** The docker part of `images.json`. */
export type RuntimeImages = NonNullable<Images['docker']>

const BUILD_TIMEOUT_MS = 900_000
const TAG_HASH_CHARS = 16
/** What all runtime images are called; their runtime and version follow. */
export const RUNTIME_IMAGE_PREFIX = 'shoal/runtime-'

export interface RuntimeImagesOptions {
  readonly docker: Docker
  /** Id of the image that all are built from. */
  readonly baseImage: string
  readonly config: Pick<DeployConfig, 'ca' | 'proxy' | 'data'>
}

/**
 * One step per image. Its tag holds a hash over all that goes in, so an image that is there is the right one. Runtimes are put
 * into `made` when both of their images are there.
 */
export async function runtimeImageSteps(
  { docker, baseImage, config }: RuntimeImagesOptions,
  made: RuntimeImages,
): Promise<readonly Step[]> {
  const hashes = await FileHashes.load(join(config.data, 'cache', 'file-hashes.json'))
  const plan = await runtimeImagePlan({
    base: baseImage,
    hashFile: (path) => hashes.get(path),
    ...(config.ca === undefined ? {} : { ca: config.ca.file }),
  })
  await hashes.save()
  const groups = Map.groupBy(plan, ({ contentHash }) => contentHash)
  return [...groups.values()].map((same) => imageStep(docker, config.proxy, same, made))
}

/** `same`: what is one image (a runtime whose run image is its build image, too). */
function imageStep(
  docker: Docker,
  proxy: Readonly<Record<string, string>>,
  same: readonly RuntimeImage[],
  made: RuntimeImages,
): Step {
  const [image] = same
  if (image === undefined) throw new RangeError('a group of no images')
  const kinds = same.map(({ kind }) => kind).join('+')
  const tag = `${RUNTIME_IMAGE_PREFIX}${image.runtime}:${image.kind}-${image.contentHash.slice(0, TAG_HASH_CHARS)}`
  const present = async (): Promise<string | undefined> => {
    const id = await imageId(docker, tag)
    if (id === undefined) return undefined
    await markUsed(docker, tag).catch(() => undefined)
    // Read and written in one turn: run and build image of a runtime come at the same time.
    const before = made[image.runtime] ?? { run: id, build: id }
    made[image.runtime] = { ...before, ...Object.fromEntries(same.map(({ kind }) => [kind, id])) }
    return tag
  }
  return {
    name: `image ${image.runtime} (${kinds})`,
    present,
    install: async (signal) => {
      await buildImage(docker, { image, tag, proxy }, signal)
      if ((await present()) === undefined) throw new Error(`built, but ${tag} is not there`)
      return `built ${tag}`
    },
    hint: 'The last lines above say why. Behind a proxy: set http_proxy and https_proxy; with a CA of its own: SHOAL_CA_BUNDLE=<PEM file>',
  }
}

async function imageId(docker: Docker, tag: string): Promise<string | undefined> {
  try {
    return (await docker.getImage(tag).inspect()).Id
  } catch (error) {
    if (error instanceof Error && 'statusCode' in error && error.statusCode === 404)
      return undefined
    throw error
  }
}

async function buildImage(
  docker: Docker,
  what: {
    readonly image: RuntimeImage
    readonly tag: string
    readonly proxy: Readonly<Record<string, string>>
  },
  signal: AbortSignal,
): Promise<void> {
  const { image, tag, proxy } = what
  const abortSignal = AbortSignal.any([signal, AbortSignal.timeout(BUILD_TIMEOUT_MS)])
  const context = pack()
  const packed = packFiles(context, image.files)
  try {
    const stream = await docker.buildImage(Readable.from(context), {
      t: tag,
      dockerfile: image.dockerfile,
      buildargs: { ...proxy, ...image.buildArgs },
      labels: { 'shoal.image': 'runtime', 'shoal.runtime': image.runtime },
      rm: true,
      forcerm: true,
      abortSignal,
    })
    const stages = new BuildStages()
    await Promise.all([packed, drainProgress(stream, (text) => stages.line(text))])
    // Else a stage that only builds stays as an image without a name, 1.25 GB with its compilers.
    await removeLeftovers(docker, stages.leftovers).catch(() => undefined)
  } catch (error) {
    context.destroy()
    await packed.catch(() => undefined)
    throw error
  }
}

/** The build context. Times are fixed: the engine's cache looks at names, modes and content. */
async function packFiles(context: Pack, files: readonly ImageFile[]): Promise<void> {
  for (const { name, path, content = '', mode } of files) {
    const header = { name, mode, mtime: new Date(0) }
    if (path === undefined) {
      context.entry(header, content)
      continue
    }
    const { size } = await stat(path)
    await pipeline(createReadStream(path), context.entry({ ...header, size }))
  }
  context.finalize()
}
