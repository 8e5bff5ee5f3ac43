import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'

type Question = 'events' | 'list'

/** A container as the engine lists it. */
export interface Listed {
  readonly Id: string
  readonly State: string
  readonly Labels: Readonly<Record<string, string>>
}

export interface HungEngine extends AsyncDisposable {
  readonly path: string
  /** Of `events` and `list`, how often each was asked. */
  readonly asked: Readonly<Record<Question, number>>
  /** Event streams that nobody has ended, answered or not. */
  readonly open: number
  /** Answers everything from now on, and what it has left unanswered. */
  answer(containers?: readonly Listed[]): void
  /** Says that a container died, on all event streams. */
  tellDie(containerId: string, attributes: Readonly<Record<string, string>>): void
}

/** Instead of a Docker daemon: takes every connection and does not answer one kind of question, as one that half hangs. */
export async function hungEngine(path: string, silentOn: Question): Promise<HungEngine> {
  const asked = { events: 0, list: 0 }
  const streams = new Set<ServerResponse>()
  const waiting = new Set<() => void>()
  let containers: readonly Listed[] = []
  let hangs = true
  const server = createServer(({ url = '' }, response) => {
    const question = /\/(events|containers\/json)/.exec(url)?.[1]
    if (question === undefined) {
      response.writeHead(404).end('{}')
      return
    }
    const kind = question === 'events' ? 'events' : 'list'
    asked[kind] += 1
    if (kind === 'events') {
      streams.add(response)
      response.on('close', () => streams.delete(response))
    }
    const reply = (): void => {
      response.writeHead(200, { 'content-type': 'application/json' })
      if (kind === 'events') response.flushHeaders()
      else response.end(JSON.stringify(containers))
    }
    if (hangs && kind === silentOn) waiting.add(reply)
    else reply()
  })
  server.listen(path)
  await once(server, 'listening')
  return {
    path,
    asked,
    get open() {
      return streams.size
    },
    answer(listed = []) {
      containers = listed
      hangs = false
      for (const reply of waiting) reply()
      waiting.clear()
    },
    tellDie(containerId, attributes) {
      const event = { Action: 'die', Actor: { ID: containerId, Attributes: attributes } }
      for (const stream of streams) stream.write(`${JSON.stringify(event)}\n`)
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
    },
  }
}
