import { Writable } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'
import { stripVTControlCharacters } from 'node:util'
import { LIMITS } from '#shared/limits.ts'

export interface OutputLimits {
  readonly linesMax: number
  readonly lastLines: number
}

/** npm points to a log file that is removed with the build's folder. */
const POINTER = /^npm (error|ERR!) (A complete log of this run|Log files were not written)/

/** Turns the output of a build into lines: hands each on, up to a limit, and keeps the last ones for the error. */
export class OutputLines {
  readonly #onLine: (line: string) => void
  readonly #limits: OutputLimits
  readonly #last: string[] = []
  #count = 0

  constructor(onLine: (line: string) => void, limits: OutputLimits) {
    this.#onLine = onLine
    this.#limits = limits
  }

  /** The last lines, oldest first. */
  get last(): readonly string[] {
    return this.#last
  }

  line(text: string): void {
    const clean = stripVTControlCharacters(text).trimEnd()
    if (clean === '' || POINTER.test(clean)) return
    this.#last.push(clean)
    if (this.#last.length > this.#limits.lastLines) this.#last.shift()
    this.#count += 1
    if (this.#count <= this.#limits.linesMax) this.#onLine(clean)
    else if (this.#count === this.#limits.linesMax + 1) {
      this.#onLine(`[more than ${this.#limits.linesMax} lines: the rest is not shown]`)
    }
  }

  /** A sink for one of the two output streams; end it to flush an unfinished line. */
  sink(): Writable {
    const decoder = new StringDecoder('utf8')
    let rest = ''
    const take = (text: string) => {
      const parts = (rest + text).split(/\r\n|\n|\r(?!$)/)
      rest = parts.pop() ?? ''
      for (const part of parts) this.line(part.slice(0, LIMITS.logLineBytesMax))
      // A line without an end must not grow for ever.
      if (rest.length > LIMITS.logLineBytesMax) {
        this.line(rest.slice(0, LIMITS.logLineBytesMax))
        rest = ''
      }
    }
    return new Writable({
      write(chunk: Buffer, _encoding, done) {
        take(decoder.write(chunk))
        done()
      },
      final: (done) => {
        take(decoder.end())
        this.line(rest)
        rest = ''
        done()
      },
    })
  }
}
