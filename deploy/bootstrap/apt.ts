import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { findProgram, runCommand } from '../command.ts'

/** Debian packages: installed when we are root, unpacked into a folder when we are not. */
export interface Apt {
  /** False on another distribution. */
  readonly available: boolean
  /** Available, and we are root. */
  readonly installs: boolean
  /** @throws Error with apt's last lines */
  install(packages: readonly string[], signal: AbortSignal): Promise<void>
  /** Downloads packages (not what they depend on) and unpacks them into `folder`. Needs no root. */
  unpack(packages: readonly string[], folder: string, signal: AbortSignal): Promise<void>
}

const ENV = { DEBIAN_FRONTEND: 'noninteractive', NEEDRESTART_SUSPEND: '1' }
// Another apt may be at work (a fresh machine updates itself): wait for it.
const OPTIONS = ['-q', '-y', '-o', 'DPkg::Lock::Timeout=180', '-o', 'Acquire::Retries=3']

export interface AptOptions {
  readonly root: boolean
  /** The data folder: package lists are kept there when the system's are missing and not ours to fetch. */
  readonly data: string
}

/** apt as it is on this machine. One run at a time: apt allows no second one. */
export function createApt({ root, data }: AptOptions): Apt {
  const aptGet = findProgram('apt-get')
  const available = aptGet !== undefined && findProgram('dpkg') !== undefined
  let last: Promise<unknown> = Promise.resolve()
  let updated = false
  let places: readonly string[] = []

  const apt = (args: readonly string[], cwd: string | undefined, signal: AbortSignal) =>
    runCommand(
      aptGet ?? 'apt-get',
      [...args, ...places],
      { env: ENV, ...(cwd === undefined ? {} : { cwd }) },
      signal,
    )

  /** Fresh package lists cost half a minute on a slow line: first without, then with. */
  const withLists = async (work: () => Promise<unknown>, signal: AbortSignal): Promise<void> => {
    try {
      await work()
    } catch (error) {
      signal.throwIfAborted()
      if (updated) throw error
      updated = true
      if (!root) places = await ownPlaces(data)
      // One of several package sources may be down while ours is up: the second try tells.
      await apt(['update', ...OPTIONS], undefined, signal).catch(() => signal.throwIfAborted())
      await work()
    }
  }

  const inTurn = async (work: () => Promise<void>): Promise<void> => {
    const mine = last.then(work, work)
    last = mine.catch(() => undefined)
    return mine
  }

  return {
    available,
    installs: available && root,
    install: (packages, signal) =>
      inTurn(() =>
        withLists(
          () =>
            apt(['install', '--no-install-recommends', ...OPTIONS, ...packages], undefined, signal),
          signal,
        ),
      ),
    unpack: (packages, folder, signal) =>
      inTurn(async () => {
        const downloads = await mkdtemp(join(tmpdir(), 'shoal-apt-'))
        try {
          await withLists(() => apt(['download', ...packages], downloads, signal), signal)
          for (const file of await readdir(downloads)) {
            await runCommand('dpkg', ['-x', join(downloads, file), folder], {}, signal)
          }
        } finally {
          await rm(downloads, { recursive: true, force: true })
        }
      }),
  }
}

/** apt reads its settings from the system and keeps its files here. */
async function ownPlaces(data: string): Promise<readonly string[]> {
  const folder = join(data, 'cache/apt')
  await mkdir(join(folder, 'lists/partial'), { recursive: true })
  await mkdir(join(folder, 'archives/partial'), { recursive: true })
  return ['-o', `Dir::State::lists=${folder}/lists`, '-o', `Dir::Cache=${folder}`]
}
