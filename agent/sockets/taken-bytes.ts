import type { Socket } from 'node:net'

interface StreamHandle {
  readonly bytesWritten: number
  readonly writeQueueSize: number
}

/**
 * How many bytes the kernel has taken of what was written to a socket so far. `bytesWritten` counts a write as a whole when it
 * begins, and `writableLength` until it has ended: between them one large write looks the same for minutes.
 */
export function takenBytes(socket: Socket): number {
  const handle: StreamHandle | null | undefined = Reflect.get(socket, '_handle')
  return handle ? handle.bytesWritten - handle.writeQueueSize : socket.bytesWritten
}
