import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'

const OUTPUT_BYTES_MAX = 16 * 1024 * 1024

/** Runs a bench script of its own and returns the JSON that it prints on stdout. @throws Error with the end of its stderr */
export async function runScript(name: string, args: readonly string[]): Promise<unknown> {
  const script = join(import.meta.dirname, '..', name)
  const { stdout } = await promisify(execFile)(process.execPath, [script, ...args], {
    maxBuffer: OUTPUT_BYTES_MAX,
  })
  const value: unknown = JSON.parse(stdout)
  return value
}
