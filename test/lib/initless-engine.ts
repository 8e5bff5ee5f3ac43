import { once } from 'node:events'
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http'
import { buffer } from 'node:stream/consumers'

export interface InitlessEngine extends AsyncDisposable {
  readonly path: string
  /** Starts that were refused for want of docker-init. */
  refused(): number
}

/** What Docker 20.10 answers, with 500. */
const MESSAGE = 'exec: "docker-init": executable file not found in $PATH'

/** The machine's Docker, as it is where docker-init is not installed: it refuses to start what was made with `Init`. */
export async function initlessEngine(
  path: string,
  target = '/var/run/docker.sock',
): Promise<InitlessEngine> {
  const withInit = new Set<string>()
  let refused = 0
  const answer = async (incoming: IncomingMessage, response: ServerResponse): Promise<void> => {
    const body = await buffer(incoming)
    const { method, headers, url = '' } = incoming
    const started = /\/containers\/(\w+)\/start/.exec(url)?.[1]
    if (started !== undefined && withInit.has(started)) {
      refused += 1
      response.writeHead(500, { 'content-type': 'application/json' })
      response.end(JSON.stringify({ message: MESSAGE }))
      return
    }
    const forward = request({ socketPath: target, path: url, method, headers }).end(body)
    const [reply]: IncomingMessage[] = await once(forward, 'response')
    if (reply === undefined) return
    response.writeHead(reply.statusCode ?? 500, reply.headers)
    if (!url.includes('/containers/create')) {
      reply.pipe(response)
      return
    }
    const made = await buffer(reply)
    const { HostConfig }: { HostConfig?: { Init?: boolean } } = JSON.parse(body.toString())
    const { Id }: { Id?: string } = JSON.parse(made.toString())
    if (HostConfig?.Init === true && Id !== undefined) withInit.add(Id)
    response.end(made)
  }
  const server = createServer((incoming, response) => {
    answer(incoming, response).catch(() => response.destroy())
  })
  server.listen(path)
  await once(server, 'listening')
  return {
    path,
    refused: () => refused,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
    },
  }
}
