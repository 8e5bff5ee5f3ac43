import * as fs from 'node:fs/promises'
import { DurableFile } from '#shared/durable-file.ts'
import type { Images } from '#shared/schemas/images.ts'
import type { Arch } from '#shared/schemas/names.ts'
import type { Runners } from './runners.ts'
import type { RuntimeImages } from './runtime-images.ts'

/** This machine's architecture in Docker's words. */
export const HOST_ARCH: Arch = process.arch === 'arm64' ? 'arm64' : 'amd64'

/** Writes `images.json`: what this machine can run. Resolves to its path. */
export async function writeImages(
  data: string,
  { images, runners }: { readonly images: RuntimeImages | undefined; readonly runners: Runners },
): Promise<string> {
  const content: Images = {
    arch: HOST_ARCH,
    ...(images === undefined ? {} : { docker: images }),
    process: runners,
  }
  const file = new DurableFile({ folder: data, name: 'images.json', fs, mode: 0o644 })
  await file.write(`${JSON.stringify(content, undefined, 2)}\n`)
  return file.path
}
