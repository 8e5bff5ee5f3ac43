import { Socket } from 'node:net'

export interface ReadBufferOptions {
  /** Where the next bytes go; asked before every read. */
  readonly buffer: () => Buffer
  /** That many bytes have been read to where `buffer` said last; false pauses the socket. */
  readonly read: (bytes: number) => boolean
  /** Keep our side open when the peer ends its own, default false. */
  readonly allowHalfOpen?: boolean
}

/**
 * The accepted socket, reading into buffers of ours instead of a new one per read: `net.Socket` has that as an option
 * (`onread`), but a server cannot ask for it, so its handle moves to a socket that can.
 */
export function withReadBuffer(accepted: Socket, options: ReadBufferOptions): Socket {
  const { buffer, read: callback, allowHalfOpen = false } = options
  const handle: unknown = Reflect.get(accepted, '_handle')
  Reflect.set(accepted, '_handle', null)
  // Without a handle this only takes the connection off the server's list.
  accepted.destroy()
  return new Socket({
    handle,
    readable: true,
    writable: true,
    allowHalfOpen,
    onread: { buffer, callback },
  } as object)
}
