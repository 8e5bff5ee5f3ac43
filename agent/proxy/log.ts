/** What a proxy uses of a logger; pino's fits. Nothing is logged per call above `debug`. */
export interface ProxyLog {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}
