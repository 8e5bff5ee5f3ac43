import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { connect, createServer, type Server, type Socket } from 'node:net'

export interface SocketRelay extends AsyncDisposable {
  readonly path: string
  /** Ends all connections and takes the socket away. */
  cut(): Promise<void>
  mend(): Promise<void>
}

/** A Unix socket in front of another one that can be cut, as when the server behind is killed. */
export async function socketRelay(path: string, target: string): Promise<SocketRelay> {
  const open = new Set<Socket>()
  let server: Server
  const mend = async (): Promise<void> => {
    server = createServer((near) => {
      const far = connect(target)
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        open.add(one)
        one.pipe(other)
        one.on('error', () => other.destroy())
        one.on('close', () => {
          open.delete(one)
          other.destroy()
        })
      }
    })
    server.listen(path)
    await once(server, 'listening')
  }
  const cut = async (): Promise<void> => {
    server.close()
    for (const socket of open) socket.destroy()
    await rm(path, { force: true })
  }
  await mend()
  return { path, cut, mend, [Symbol.asyncDispose]: cut }
}
