/** Where a connection is in its life; see `Connection`. */
export type ConnectionState =
  /** Between two requests. */
  | 'idle'
  | 'head'
  /** In a body whose length is known; in one made of chunks. */
  | 'counted'
  | 'chunked'
  /** The request has been read, its answer has not been sent. */
  | 'read'
  /** After the last answer, or while it is held back (see `Tarpit`): what still comes is thrown away. */
  | 'lingering'
  | 'closed'
