import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { bundle } from './build.ts'
import { launcherText } from './launcher.ts'
import { noticesText, thirdParties } from './licences.ts'
import { PROGRAMS } from './programs.ts'

const ROOT = join(import.meta.dirname, '../..')

export interface ReleaseOptions {
  /** Made when missing; what is in it already and has other names stays. */
  readonly folder: string
  /** Default: no. */
  readonly sourceMaps?: boolean
}

/**
 * Writes everything that an installation needs beside Node: a file per program, one that starts the agent as it was measured to
 * run best, and the licences of what is inside. Resolves to the names of the files.
 *
 * @throws Error in esbuild's words
 */
export async function buildRelease(options: ReleaseOptions): Promise<readonly string[]> {
  const { folder, sourceMaps = false } = options
  await mkdir(folder, { recursive: true })
  const built = await Promise.all(
    PROGRAMS.map(async (program) => {
      const file = `${program.name}.mjs`
      const inputs = await bundle({ program, file: join(folder, file), sourceMap: sourceMaps })
      return { file, inputs }
    }),
  )
  const parties = await thirdParties(
    ROOT,
    built.flatMap(({ inputs }) => inputs),
  )
  await writeFile(join(folder, NOTICES), noticesText(parties))
  await writeFile(join(folder, LAUNCHER), launcherText())
  await chmod(join(folder, LAUNCHER), 0o755)
  return [...built.map(({ file }) => file), LAUNCHER, NOTICES]
}

const LAUNCHER = 'shoal-agent'
const NOTICES = 'THIRD-PARTY-NOTICES.txt'
