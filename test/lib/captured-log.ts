/** A logger whose lines a test can look at. */
export class CapturedLog {
  readonly lines: { level: string; message: string; fields: object }[] = []

  info(fields: object, message: string): void {
    this.lines.push({ level: 'info', message, fields })
  }

  warn(fields: object, message: string): void {
    this.lines.push({ level: 'warn', message, fields })
  }

  error(fields: object, message: string): void {
    this.lines.push({ level: 'error', message, fields })
  }
}
