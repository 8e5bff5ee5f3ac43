/** Where the request's body goes when it does not come whole: its parts, and then one of `end` and `lost`. */
export interface BodySink {
  /** The bytes may be overwritten after the call. */
  chunk(bytes: Buffer): void
  /** That was all of it. */
  end(): void
  /** The rest will never come. */
  lost(error: Error): void
}
