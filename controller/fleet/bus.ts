/** A message as it came or shall go; header names as in `shared/schemas/wire.ts`. */
export interface BusMessage {
  readonly data: Uint8Array
  readonly header: (name: string) => string | undefined
}

export interface BusRequest extends BusMessage {
  readonly subject: string
  /** Where the sender waits; absent when it does not. */
  readonly replyTo: string | undefined
  respond(data: Uint8Array, headers?: Readonly<Record<string, string>>): void
}

export interface RequestOptions {
  readonly timeoutMs: number
  readonly headers?: Readonly<Record<string, string>>
}

/** Messages to and from nodes; what the fleet needs of NATS. */
export interface Bus {
  readonly connected: boolean
  /** @throws Fault `NODE_OFFLINE` (nobody listens, or no connection), `NODE_TIMEOUT`, `CALLER_GONE` (the signal) */
  request(
    subject: string,
    data: Uint8Array,
    options: RequestOptions,
    signal?: AbortSignal,
  ): Promise<BusMessage>
  /**
   * Lasts over lost connections. With `queue`, one of all subscribers of that name gets each message.
   *
   * @returns ends the subscription
   */
  subscribe(
    subject: string,
    handler: (message: BusRequest) => void,
    options?: { readonly queue?: string },
  ): () => void
}
