/** Bounds that both sides of the wire must agree on. Local bounds live beside what they bound. */
export const LIMITS = {
  /** Function name: segments joined by `/`. */
  nameSegmentsMax: 4,
  nameSegmentCharsMax: 64,
  /** Default bound of a call's body, either way (agent setting `SHOAL_BODY_BYTES_MAX`). */
  bodyBytesMax: 8 * 1024 * 1024,
  /** One answer to `shoal.v1.artifact.get`; below NATS' default max_payload of 1 MiB. */
  artifactRangeBytesMax: 512 * 1024,
  /** Body of a call that travels over NATS (invoke through a node), either way. */
  natsBodyBytesMax: 768 * 1024,
  /** An uploaded source tree, packed, and unpacked. */
  sourceBytesMax: 64 * 1024 * 1024,
  bundleBytesMax: 512 * 1024 * 1024,
  bundleFilesMax: 50_000,
  /** Functions in one command, and the whole command. */
  functionsPerNodeMax: 500,
  /** As base64url in its envelope this stays below NATS' default max_payload of 1 MiB. */
  commandBytesMax: 704 * 1024,
  placementsMax: 64,
  /** Handlers of one function on one node. */
  replicasMax: 64,
  /** Environment of one function, names and values together. */
  envBytesMax: 32 * 1024,
  logLineBytesMax: 16 * 1024,
} as const
