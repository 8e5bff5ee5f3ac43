import { readFile, stat } from 'node:fs/promises'
import { Check, Errors } from 'typebox/value'
import { Fault } from '#shared/fault.ts'
import { Images } from '#shared/schemas/images.ts'

/** What this host can run; read anew when it has changed. */
export interface ImagesSource {
  /** @throws Fault `IMAGE_MISSING` when there is none, `CONFIG_INVALID` when it is not as its schema says */
  load(): Promise<Images>
}

/** `images.json`, written by the bootstrap; an agent needs no restart when it appears or changes. */
export class ImagesFile implements ImagesSource {
  readonly path: string
  #read: { readonly key: string; readonly images: Images } | undefined

  constructor(path: string) {
    this.path = path
  }

  async load(): Promise<Images> {
    const key = await this.#key()
    if (this.#read?.key === key) return this.#read.images
    const images = parse(await readFile(this.path, 'utf8'), this.path)
    this.#read = { key, images }
    return images
  }

  async #key(): Promise<string> {
    try {
      const { mtimeMs, size, ino } = await stat(this.path)
      return `${mtimeMs} ${size} ${ino}`
    } catch (cause) {
      throw new Fault(
        'IMAGE_MISSING',
        `no runtime images: ${this.path} cannot be read; \`npm start\` makes them, SHOAL_IMAGES_FILE names another place`,
        { path: this.path },
        { cause },
      )
    }
  }
}

function parse(text: string, path: string): Images {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new Fault('CONFIG_INVALID', `${path} is not JSON`, { path }, { cause })
  }
  if (Check(Images, value)) return value
  const first = Errors(Images, value)[0]
  throw new Fault(
    'CONFIG_INVALID',
    `${path}: ${first?.instancePath ?? ''} ${first?.message ?? 'not as the schema says'}`,
    { path },
  )
}
