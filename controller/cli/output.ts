import { styleText } from 'node:util'

/** Where a command's words go. */
export interface Output {
  /** Lines may be redrawn and coloured. */
  readonly tty: boolean
  readonly columns: number
  /** To stdout. */
  write(content: string | Uint8Array): void
  /** To stderr: what is not the answer. */
  note(text: string): void
}

type Format = Parameters<typeof styleText>[0]

/** Coloured on a terminal (unless NO_COLOR is set), plain elsewhere. */
export function paint(out: Output, format: Format, text: string): string {
  return out.tty ? styleText(format, text, { validateStream: false }) : text
}

export function writeJson(out: Output, value: unknown): void {
  out.write(`${JSON.stringify(value)}\n`)
}

/**
 * A block of lines that shows how far something is. On a terminal it is redrawn in place; elsewhere each line that is new is
 * printed once, so that a log reads well.
 */
export class ProgressBlock {
  readonly #out: Output
  readonly #seen = new Set<string>()
  #height = 0

  constructor(out: Output) {
    this.#out = out
  }

  show(lines: readonly string[]): void {
    if (!this.#out.tty) {
      for (const line of lines) {
        if (this.#seen.has(line)) continue
        this.#seen.add(line)
        this.#out.write(`${line}\n`)
      }
      return
    }
    const up = this.#height === 0 ? '' : `\x1b[${this.#height}A\x1b[J`
    const fitting = lines.map((line) => clip(line, this.#out.columns))
    this.#out.write(`${up}${fitting.map((line) => `${line}\n`).join('')}`)
    this.#height = lines.length
  }
}

const ESCAPE = '\u001b'

/** A line that wraps would break the count of lines to go up by. Colour codes take no room. */
function clip(line: string, columns: number): string {
  const [first = '', ...coloured] = line.split(ESCAPE)
  let room = columns - 1
  const take = (text: string) => {
    const part = text.slice(0, Math.max(0, room))
    room -= text.length
    return part
  }
  let result = take(first)
  for (const part of coloured) {
    const end = part.indexOf('m') + 1
    result += ESCAPE + part.slice(0, end) + take(part.slice(end))
  }
  return result
}
