import { execFile } from 'node:child_process'
import { access, readFile, readdir } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { promisify } from 'node:util'
import type Docker from 'dockerode'
import { pack } from 'tar-stream'
import { TEST_LABEL } from './docker.ts'
import { collectBytes } from './bytes.ts'
import { tempFolder } from './temp.ts'

const run = promisify(execFile)

const PROGRAMS = [
  'sh',
  'cat',
  'id',
  'sleep',
  'ls',
  'touch',
  'dd',
  'ifconfig',
  'wget',
  'tail',
  'kill',
]

/**
 * Makes an image that holds only a static busybox and runs the bundle's `main.sh`: a stand-in for a runtime image where the
 * engine is what is tested. Carries the label of the test's own scope.
 *
 * @returns the image's id
 */
export async function busyboxImage(docker: Docker, label: string): Promise<string> {
  const tar = pack()
  tar.entry({ name: 'bin/busybox', mode: 0o755 }, await busybox())
  for (const name of PROGRAMS) {
    tar.entry({ name: `bin/${name}`, type: 'symlink', linkname: 'busybox' })
  }
  for (const name of ['tmp', 'proc', 'sys', 'dev', 'etc', 'shoal']) {
    tar.entry({ name, type: 'directory', mode: 0o755 })
  }
  tar.finalize()
  const bytes = await collectBytes(tar)
  const stream: NodeJS.ReadableStream = await docker.importImage(Readable.from([bytes]), {
    repo: label,
    tag: 'busybox',
    changes: [
      `LABEL ${TEST_LABEL}=${label}`,
      'ENV PATH=/bin',
      'WORKDIR /shoal/fn',
      'CMD ["/bin/sh","main.sh"]',
    ],
  })
  for await (const _ of stream);
  const { Id } = await docker.getImage(`${label}:busybox`).inspect()
  return Id
}

/** The host's static busybox, else the one of the distribution's package. */
async function busybox(): Promise<Buffer> {
  const installed = await access('/bin/busybox').then(
    () => true,
    () => false,
  )
  if (installed && !(await run('ldd', ['/bin/busybox']).then(isDynamic, () => false))) {
    return readFile('/bin/busybox')
  }
  await using folder = await tempFolder()
  await run('apt-get', ['download', 'busybox-static'], { cwd: folder.path, timeout: 120_000 })
  const file = (await readdir(folder.path)).find((name) => name.endsWith('.deb'))
  if (file === undefined) throw new Error('apt-get download busybox-static left no package')
  await run('dpkg', ['-x', file, 'x'], { cwd: folder.path })
  const root = folder.join('x')
  const merged = await access(`${root}/bin/busybox`).then(
    () => false,
    () => true,
  )
  return await readFile(merged ? `${root}/usr/bin/busybox` : `${root}/bin/busybox`)
}

function isDynamic({ stdout }: { readonly stdout: string }): boolean {
  return stdout.includes('=>')
}
