import { parseArgs, type ParseArgsOptionDescriptor } from 'node:util'

/** The options of a script, which may have none that it does not know; ends the process with the usage for those and for `--help`. */
export class Options<const Known extends Readonly<Record<string, ParseArgsOptionDescriptor>>> {
  readonly values
  readonly #usage: string

  constructor(usage: string, options: Known) {
    this.#usage = usage
    this.values = this.#read(options)
  }

  /** What the script was told as `--name`: a number above 0. */
  positive(name: string, text: string): number {
    const value = Number(text)
    return value > 0 && Number.isFinite(value)
      ? value
      : this.fail(`--${name} is a number above 0: ${text}`)
  }

  /** A whole number above 0. */
  count(name: string, text: string): number {
    const value = this.positive(name, text)
    return Number.isInteger(value) ? value : this.fail(`--${name} is a whole number: ${text}`)
  }

  fail(reason: string): never {
    process.stderr.write(`${reason}\n\n${this.#usage}\n`)
    return process.exit(1)
  }

  #read(options: Known) {
    try {
      const { values } = parseArgs({ options: { ...options, help: { type: 'boolean' } } })
      if (!process.argv.includes('--help')) return values
    } catch (error) {
      this.fail(error instanceof Error ? error.message : String(error))
    }
    process.stdout.write(`${this.#usage}\n`)
    return process.exit(0)
  }
}
