import { room } from '#agent/sockets/index.ts'

/** What may be asked for; what is not follows from the process. */
export interface LimitOptions {
  /** Bound of a body, either way. */
  readonly bodyBytesMax: number
  /** So many processes share the defaults, default 1; how much memory there is each knows by itself. */
  readonly processes?: number
  /** Requests at once, default 4,096; 4.29 above. */
  readonly inFlightMax?: number
  /** Bytes of the bodies of these requests, default 64 MiB or eight of the largest, less where memory is short; 4.29 above. */
  readonly inFlightBytesMax?: number
  /**
   * Message ids that are remembered, default 65,000 (with those in work they fit the table's 65,536 rows), and bytes with their responses,
   * default 32 MiB or half of what bodies may have.
   */
  readonly dedupEntriesMax?: number
  readonly dedupBytesMax?: number
  /** Observations at once, default 1,024, and of one address, default a quarter of them; 4.29 above. */
  readonly observersMax?: number
  readonly observersPerAddressMax?: number
}

/** `bodyBytesMax` is less than was asked for where a body in blocks would not find so much room. */
export interface Limits extends Required<Omit<LimitOptions, 'processes'>> {
  /** Request bodies that are not complete, and as many of answers that are not fetched completely. */
  readonly blockwiseBytesMax: number
  /** One server-sent event: what an observer gets in 64 blocks. */
  readonly eventBytesMax: number
  /** The newest events that need several blocks, of all observations. */
  readonly eventsBytesMax: number
}

const MIB = 1024 * 1024
const EVENT_BYTES_MAX = 64 * 1024

/** @param bodyBytes - what this process may have for bodies */
export function limitsOf(options: LimitOptions, bodyBytes: number = room.bodyBytes): Limits {
  const { processes = 1 } = options
  const part = (most: number): number => Math.ceil(most / processes)
  const within = (most: number, share = 1): number => Math.min(most, Math.floor(bodyBytes * share))
  const blockwiseBytesMax = within(Math.max(part(32 * MIB), 4 * options.bodyBytesMax))
  const bodyBytesMax = Math.min(options.bodyBytesMax, blockwiseBytesMax)
  const observersMax = options.observersMax ?? part(1_024)
  return {
    bodyBytesMax,
    inFlightMax: options.inFlightMax ?? part(4_096),
    inFlightBytesMax:
      options.inFlightBytesMax ?? within(Math.max(part(64 * MIB), 8 * bodyBytesMax)),
    dedupEntriesMax: options.dedupEntriesMax ?? part(65_000),
    dedupBytesMax: options.dedupBytesMax ?? within(part(32 * MIB), 1 / 2),
    observersMax,
    observersPerAddressMax: options.observersPerAddressMax ?? Math.ceil(observersMax / 4),
    blockwiseBytesMax,
    eventBytesMax: Math.min(EVENT_BYTES_MAX, bodyBytesMax),
    eventsBytesMax: within(part(16 * MIB), 1 / 4),
  }
}
