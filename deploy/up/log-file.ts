import { closeSync, fstatSync, mkdirSync, openSync, renameSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'

export interface LogFileOptions {
  readonly path: string
  /** Default 8 MiB: the file is then put aside, and a new one begun. */
  readonly bytesMax?: number
  /** Files put aside: `.1` is the newest. Default 3. */
  readonly kept?: number
}

/** A log that cannot fill the disk. A line that cannot be written is dropped: a full disk must not stop what is logged. */
export class LogFile {
  readonly path: string
  readonly #bytesMax: number
  readonly #kept: number
  #file: number
  #bytes: number

  constructor({ path, bytesMax = 8 * 1024 * 1024, kept = 3 }: LogFileOptions) {
    this.path = path
    this.#bytesMax = bytesMax
    this.#kept = kept
    mkdirSync(dirname(path), { recursive: true })
    this.#file = openSync(path, 'a')
    this.#bytes = fstatSync(this.#file).size
  }

  write(line: string): void {
    const bytes = Buffer.from(`${line}\n`)
    try {
      if (this.#bytes > 0 && this.#bytes + bytes.length > this.#bytesMax) this.#rotate()
      writeSync(this.#file, bytes)
      this.#bytes += bytes.length
    } catch {
      // See the class: the log is less important than what it is about.
    }
  }

  close(): void {
    closeSync(this.#file)
  }

  #rotate(): void {
    for (let number = this.#kept - 1; number >= 1; number -= 1) {
      renameIfThere(`${this.path}.${number}`, `${this.path}.${number + 1}`)
    }
    renameIfThere(this.path, `${this.path}.1`)
    closeSync(this.#file)
    this.#file = openSync(this.path, 'a')
    this.#bytes = 0
  }
}

function renameIfThere(from: string, to: string): void {
  try {
    renameSync(from, to)
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error
  }
}
