/** Where adapters log; a pino logger fits. */
export interface CompatLog {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
}
