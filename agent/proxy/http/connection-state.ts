/** Of a connection, see `Connection`. */
export type State =
  /** Between two requests. */
  | 'idle'
  | 'head'
  /** In a body whose length is known; in one made of chunks. */
  | 'counted'
  | 'chunked'
  /** The request has been read, its answer has not been sent. */
  | 'read'
  /** After the last answer: what still comes is thrown away. */
  | 'lingering'
  | 'closed'
