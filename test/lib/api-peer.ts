import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import type { Builder, Source } from '#controller/build/index.ts'
import { FAULTS, Fault } from '#shared/fault.ts'
import type {
  FunctionView,
  NodeLogLine,
  NodeView,
  Release,
  Rollout,
  RolloutNode,
  RolloutState,
} from '#shared/schemas/api.ts'
import type { FunctionSettings } from '#shared/schemas/command.ts'
import { RUNTIMES } from '#shared/schemas/names.ts'
import { fullSettings } from './api-views.ts'

export interface PeerCall {
  readonly method: string
  readonly path: string
  readonly query: URLSearchParams
  readonly headers: IncomingMessage['headers']
  readonly body: Buffer
}

/**
 * The other side of the controller's API for tests of its clients: real HTTP, a catalogue in memory, no nodes behind it. What it
 * answers to a rollout and a build is set by the test.
 */
export class ApiPeer implements AsyncDisposable {
  readonly token = 'peer-token'
  readonly calls: PeerCall[] = []
  readonly functions = new Map<string, FunctionView>()
  readonly rollouts = new Map<string, Rollout>()
  nodes: NodeView[] = []
  logs: NodeLogLine[] = []
  /** Builds uploads; without it each upload becomes a release unseen. */
  builder: Builder | undefined
  buildLines: string[] = []
  buildFault: Fault | undefined
  /** What `watch` sends, one snapshot each; the last one is the outcome. */
  snapshots: { state: RolloutState; nodes: RolloutNode[]; reason?: string }[] = []
  /** Answers a call in another way than usual. */
  override: ((call: PeerCall, response: ServerResponse) => boolean) | undefined
  readonly #server = createServer((request, response) => void this.#serve(request, response))

  static async start(): Promise<ApiPeer> {
    const peer = new ApiPeer()
    peer.#server.listen(0, '127.0.0.1')
    await once(peer.#server, 'listening')
    return peer
  }

  get url(): string {
    const address = this.#server.address()
    if (address === null || typeof address === 'string') throw new TypeError('a TCP address')
    return `http://127.0.0.1:${address.port}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
    await once(this.#server, 'close')
  }

  /** The one call with this method and path that was made. */
  call(method: string, path: string): PeerCall {
    const found = this.calls.find((call) => call.method === method && call.path === path)
    if (found === undefined) {
      const made = this.calls.map((call) => `${call.method} ${call.path}`).join(', ')
      throw new Error(`no ${method} ${path} among: ${made}`)
    }
    return found
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.url)
    const { method = 'GET', headers } = request
    const body = await buffer(request)
    const call = { method, path: url.pathname, query: url.searchParams, headers, body }
    this.calls.push(call)
    try {
      if (this.override?.(call, response) === true) return
      if (url.pathname === '/readyz') return void response.end('ready')
      if (headers.authorization !== `Bearer ${this.token}`) {
        throw new Fault('UNAUTHENTICATED', 'wrong token')
      }
      await this.#route(call, response)
    } catch (error) {
      const { code, message } = Fault.from(error)
      const { http, retry } = FAULTS[code]
      json(response, { code, message, retry }, http)
    }
  }

  async #route(call: PeerCall, response: ServerResponse): Promise<void> {
    const [, , kind, rawName = '', verb, ...rest] = call.path.split('/')
    const name = decodeURIComponent(rawName)
    switch (kind) {
      case 'functions':
        return this.#functions(call, response, name, verb, rest)
      case 'rollouts':
        return this.#rollouts(call, response, name, verb)
      case 'nodes':
        return this.#nodes(call, response, name)
      case 'tokens':
        return json(response, { token: 'join-me', expiresAtMs: 1_800_000_000_000 })
      case 'wipe': {
        const removed = [...this.functions.keys()]
        this.functions.clear()
        return json(response, { removed, pending: [] })
      }
      case undefined:
      default:
        throw new Fault('NOT_FOUND', call.path)
    }
  }

  async #functions(
    call: PeerCall,
    response: ServerResponse,
    name: string,
    verb: string | undefined,
    rest: readonly string[],
  ): Promise<void> {
    if (name === '') return json(response, [...this.functions.values()])
    if (verb === 'releases') return this.#release(call, response, name)
    const fn = this.functions.get(name)
    if (fn === undefined) throw new Fault('FUNCTION_UNKNOWN', `there is no function ${name}`)
    if (verb === 'logs') {
      for (const line of this.logs) response.write(`${JSON.stringify(line)}\n`)
      if (call.query.get('follow') !== '1') response.end()
      return
    }
    if (verb === 'invoke') {
      response.writeHead(200, { 'shoal-node': 'n1' })
      response.end(`${call.method} /${rest.join('/')} ${call.body.toString()}`)
      return
    }
    if (call.method === 'DELETE') {
      this.functions.delete(name)
      return json(response, { removed: [name], pending: [] })
    }
    json(response, fn)
  }

  async #release(call: PeerCall, response: ServerResponse, name: string): Promise<void> {
    response.writeHead(200, { 'content-type': 'application/x-ndjson' })
    const line = (value: unknown) => void response.write(`${JSON.stringify(value)}\n`)
    const log = (text: string) => line({ type: 'log', line: text })
    for (const text of this.buildLines) log(text)
    try {
      if (this.buildFault !== undefined) throw this.buildFault
      const release = await this.#build(call, name, log)
      const before = this.functions.get(name)
      const releases = [release, ...(before?.releases ?? [])]
      const rest = { nodes: [], placements: [], ...before, name }
      this.functions.set(name, { ...rest, latestRelease: release.id, releases })
      line({ type: 'release', release, cached: false })
    } catch (error) {
      const { code, message, details } = Fault.from(error)
      line({ type: 'error', code, message, lines: details['lines'] })
    }
    response.end()
  }

  async #build(call: PeerCall, name: string, log: (line: string) => void): Promise<Release> {
    const number = (this.functions.get(name)?.releases.length ?? 0) + 1
    const wanted = call.query.get('runtime')
    const runtime = RUNTIMES.find((each) => each === wanted)
    const source: Source =
      call.headers['content-type'] === 'application/json'
        ? urlSource(call.body)
        : { kind: 'stream', type: 'tar', body: Readable.from([call.body]) }
    const digest = `sha256:${'ab'.repeat(32)}`
    const plain = {
      runtime: runtime ?? 'nodejs',
      digest,
      bytes: 1234,
      arch: 'any',
      sourceHash: digest,
    } as const
    const never = new AbortController().signal
    const built = await this.builder?.build(source, { runtime, arch: 'amd64' }, log, never)
    const { digest: made } = built ?? plain
    return {
      id: `r${number}-${made.slice(7, 15)}`,
      function: name,
      number,
      createdAtMs: Date.now(),
      ...(built ?? plain),
    }
  }

  #rollouts(call: PeerCall, response: ServerResponse, id: string, verb: string | undefined): void {
    if (call.method === 'POST' && id === '') return json(response, this.#begin(call), 202)
    if (id === '') return json(response, [...this.rollouts.values()])
    const rollout = this.rollouts.get(id)
    if (rollout === undefined) throw new Fault('ROLLOUT_UNKNOWN', `there is no rollout ${id}`)
    if (verb === 'abort') {
      this.rollouts.set(id, { ...rollout, state: 'aborted', endedAtMs: rollout.createdAtMs + 1500 })
      return json(response, this.rollouts.get(id))
    }
    if (verb !== 'watch') return json(response, rollout)
    let last = rollout
    for (const snapshot of this.snapshots) {
      last = { ...rollout, ...snapshot, endedAtMs: rollout.createdAtMs + 1500 }
      response.write(`${JSON.stringify(last)}\n`)
    }
    this.rollouts.set(id, last)
    response.end()
  }

  #begin({ body }: PeerCall): Rollout {
    const request: {
      function: string
      release: string
      selector: string
      settings: Partial<FunctionSettings>
    } = JSON.parse(body.toString())
    const fn = this.functions.get(request.function)
    if (fn === undefined) throw new Fault('FUNCTION_UNKNOWN', request.function)
    const settings = fullSettings({ ...fn.settings, ...request.settings })
    this.functions.set(fn.name, { ...fn, settings })
    const rollout: Rollout = {
      id: `ro-${this.rollouts.size + 1}`,
      function: fn.name,
      release: request.release,
      selector: request.selector,
      settings,
      state: 'rolling',
      createdAtMs: Date.now(),
      deadlineAtMs: Date.now() + 120_000,
      nodes: this.snapshots[0]?.nodes.map((node) => ({ ...node, state: 'pending' as const })) ?? [],
    }
    this.rollouts.set(rollout.id, rollout)
    return rollout
  }

  #nodes(call: PeerCall, response: ServerResponse, id: string): void {
    if (id === '') return json(response, this.nodes)
    const node = this.nodes.find((each) => each.id === id)
    if (node === undefined) throw new Fault('NODE_UNKNOWN', `there is no node ${id}`)
    if (call.method !== 'DELETE') return json(response, node)
    this.nodes = this.nodes.filter((each) => each !== node)
    response.writeHead(204).end()
  }
}

function urlSource(body: Buffer): Source {
  const { url, subfolder }: { url: string; subfolder?: string } = JSON.parse(body.toString())
  return { kind: 'url', url, subfolder }
}

function json(response: ServerResponse, value: unknown, status = 200): void {
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(JSON.stringify(value))
}
