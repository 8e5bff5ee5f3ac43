import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { Check, Errors } from 'typebox/value'
import { Images } from '#shared/schemas/images.ts'

/**
 * Runtime images and interpreters that the bootstrap made on this machine: `SHOAL_TEST_IMAGES` names the file (set by
 * `npm test`), else the one in the data folder.
 */
export function testImages(): Images {
  const file = testImagesFile()
  let value: unknown
  try {
    value = JSON.parse(readFileSync(file, 'utf8'))
  } catch (cause) {
    throw new Error(
      `no runtime images at ${file}; make them with: node deploy/start.mjs bootstrap`,
      {
        cause,
      },
    )
  }
  if (Check(Images, value)) return value
  throw new Error(`${file}: ${Errors(Images, value)[0]?.message ?? 'not as the schema says'}`)
}

/** Where `testImages` looks. */
export function testImagesFile(): string {
  const data = process.env['SHOAL_DATA'] ?? join(homedir(), '.local/share/shoal')
  return process.env['SHOAL_TEST_IMAGES'] ?? join(data, 'images.json')
}
