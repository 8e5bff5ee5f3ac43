import { readFile } from 'node:fs/promises'

// os-release(5): the first one that is there holds.
const FILES = ['/etc/os-release', '/usr/lib/os-release']

/** Name and version of the distribution, e.g. `Debian GNU/Linux 12`; `unknown` where nothing says it. */
export async function readOsName(files: readonly string[] = FILES): Promise<string> {
  for (const file of files) {
    const text = await readFile(file, 'utf8').catch(() => undefined)
    if (text !== undefined) return parseOsRelease(text)
  }
  return 'unknown'
}

/** `NAME` and `VERSION_ID`; a distribution without versions has the first alone. */
export function parseOsRelease(text: string): string {
  const value = (key: string): string => {
    const found = new RegExp(`^${key}=(["']?)(.*)\\1\\s*$`, 'm').exec(text)?.[2] ?? ''
    return found.replaceAll(/\\(["'$`\\])/g, '$1')
  }
  return `${value('NAME')} ${value('VERSION_ID')}`.trim() || 'unknown'
}
