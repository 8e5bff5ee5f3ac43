import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { tempFolder, type TempFolder } from './temp.ts'

/** A folder with a function's files, as a user has it on disk; `*.sh` is executable. */
export async function functionFolder(files: Readonly<Record<string, string>>): Promise<TempFolder> {
  const folder = await tempFolder()
  for (const [path, content] of Object.entries(files)) {
    const file = join(folder.path, path)
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, content)
    if (path.endsWith('.sh')) await chmod(file, 0o755)
  }
  return folder
}
