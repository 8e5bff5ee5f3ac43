import type { IncomingMessage } from 'node:http'
import { Type, type Static, type TSchema } from 'typebox'
import { Value } from 'typebox/value'
import { Fault } from '#shared/fault.ts'
import {
  FunctionView,
  NewToken,
  NodeLogLine,
  NodeView,
  ReleaseLine,
  Removal,
  Rollout,
  type Release,
} from '#shared/schemas/api.ts'
import { timeLimit } from '#shared/time-limit.ts'
import { faultOf, httpCall, namedFault, parseJson, readLines, readText } from './http-call.ts'
import type {
  ApiClientOptions,
  InvokeAnswer,
  InvokeRequest,
  LogsRequest,
  ReleaseRequest,
  RolloutRequest,
} from './model.ts'

/** Calls that answer at once; the others end when what they follow ends. */
const CALL_TIMEOUT_MS = 60_000

interface Call {
  readonly method?: string
  readonly path: string
  readonly query?: Readonly<Record<string, string | number | undefined>>
  readonly body?: unknown
}

/**
 * The controller's API, one method per call. Every method throws the Fault that the controller names, or
 * `CONTROLLER_UNREACHABLE`.
 */
export class ApiClient {
  readonly #base: string
  readonly #token: string

  constructor({ url, token }: ApiClientOptions) {
    this.#base = url.replace(/\/+$/, '')
    this.#token = token
  }

  get url(): string {
    return this.#base
  }

  /** Whether the controller serves; needs no token. */
  async ready(signal: AbortSignal): Promise<boolean> {
    const answer = await this.#send({ path: '/readyz' }, signal)
    answer.resume()
    return answer.statusCode === 200
  }

  async functions(signal: AbortSignal): Promise<FunctionView[]> {
    return this.#json(Type.Array(FunctionView), { path: '/v1/functions' }, signal)
  }

  async function(name: string, signal: AbortSignal): Promise<FunctionView> {
    return this.#json(FunctionView, { path: functionPath(name) }, signal)
  }

  /**
   * Uploads a source and waits for its build.
   *
   * @param onLine - Gets the build's output as it comes.
   */
  async createRelease(
    name: string,
    { source, runtime, arch, selector }: ReleaseRequest,
    onLine: (line: string) => void,
    signal: AbortSignal,
  ): Promise<{ release: Release; cached: boolean }> {
    const url = this.#url({
      path: `${functionPath(name)}/releases`,
      query: { runtime, arch, selector },
    })
    const upload =
      source.kind === 'archive'
        ? { type: source.type, body: source.body }
        : {
            type: 'application/json',
            body: Buffer.from(JSON.stringify({ url: source.url, subfolder: source.subfolder })),
          }
    const headers = { ...this.#headers(), 'content-type': upload.type }
    const answer = await httpCall({ method: 'POST', url, headers, body: upload.body }, signal)
    if (answer.statusCode !== 200) throw await faultOf(answer)
    for await (const value of readLines(answer)) {
      if (!Value.Check(ReleaseLine, value)) continue
      if (value.type === 'log') onLine(value.line)
      else if (value.type === 'release') return value
      else {
        const details = value.lines === undefined ? {} : { lines: value.lines }
        throw namedFault(value.code, value.message, details)
      }
    }
    throw new Fault('CONTROLLER_UNREACHABLE', 'the connection broke off before the build ended')
  }

  async removeFunction(name: string, signal: AbortSignal): Promise<Removal> {
    return this.#json(Removal, { method: 'DELETE', path: functionPath(name) }, signal)
  }

  async wipe(signal: AbortSignal): Promise<Removal> {
    return this.#json(Removal, { method: 'POST', path: '/v1/wipe', body: {} }, signal)
  }

  async createRollout(body: RolloutRequest, signal: AbortSignal): Promise<Rollout> {
    return this.#json(Rollout, { method: 'POST', path: '/v1/rollouts', body }, signal)
  }

  async rollouts(fn: string | undefined, signal: AbortSignal): Promise<Rollout[]> {
    const call = { path: '/v1/rollouts', query: { function: fn } }
    return this.#json(Type.Array(Rollout), call, signal)
  }

  async rollout(id: string, signal: AbortSignal): Promise<Rollout> {
    return this.#json(Rollout, { path: rolloutPath(id) }, signal)
  }

  async abortRollout(id: string, signal: AbortSignal): Promise<Rollout> {
    const call = { method: 'POST', path: `${rolloutPath(id)}/abort`, body: {} }
    return this.#json(Rollout, call, signal)
  }

  /**
   * Follows a rollout.
   *
   * @yields Snapshots, until the rollout ends or waits for offline nodes only.
   */
  async *watchRollout(id: string, signal: AbortSignal): AsyncGenerator<Rollout, void> {
    const answer = await this.#send({ path: `${rolloutPath(id)}/watch` }, signal)
    if (answer.statusCode !== 200) throw await faultOf(answer)
    for await (const value of readLines(answer)) if (Value.Check(Rollout, value)) yield value
  }

  /**
   * Calls a function through a node. Whatever the node answers is an answer, also an error; what the controller itself refuses
   * (no such function, no node online) is thrown.
   */
  async invoke(name: string, request: InvokeRequest, signal: AbortSignal): Promise<InvokeAnswer> {
    const rest = (request.path ?? '').replace(/^\/+/, '')
    const [path = '', query] = rest.split(/\?(.*)/s)
    const url = this.#url({ path: `${functionPath(name)}/invoke/${path}` })
    if (query !== undefined) url.search = query
    if (request.node !== undefined) url.searchParams.append('node', request.node)
    const headers = { ...request.headers, ...this.#headers() }
    const { method, body } = request
    const answer = await httpCall({ method, url, headers, body }, signal)
    const status = answer.statusCode ?? 0
    if (status >= 400 && answer.headers['shoal-node'] === undefined) throw await faultOf(answer)
    return { status, headers: answer.headers, body: answer }
  }

  async *logs(
    name: string,
    { tail, follow, node }: LogsRequest,
    signal: AbortSignal,
  ): AsyncGenerator<NodeLogLine, void> {
    const query = { tail, follow: follow === true ? 1 : 0, node }
    const answer = await this.#send({ path: `${functionPath(name)}/logs`, query }, signal)
    if (answer.statusCode !== 200) throw await faultOf(answer)
    for await (const value of readLines(answer)) if (Value.Check(NodeLogLine, value)) yield value
  }

  async nodes(signal: AbortSignal): Promise<NodeView[]> {
    return this.#json(Type.Array(NodeView), { path: '/v1/nodes' }, signal)
  }

  async node(id: string, signal: AbortSignal): Promise<NodeView> {
    return this.#json(NodeView, { path: nodePath(id) }, signal)
  }

  async removeNode(id: string, signal: AbortSignal): Promise<void> {
    const answer = await this.#send({ method: 'DELETE', path: nodePath(id) }, signal)
    if (!succeeded(answer)) throw await faultOf(answer)
    answer.resume()
  }

  async createToken(
    body: { readonly ttlMs?: number | undefined; readonly uses?: number | undefined },
    signal: AbortSignal,
  ): Promise<NewToken> {
    return this.#json(NewToken, { method: 'POST', path: '/v1/tokens', body }, signal)
  }

  async #json<T extends TSchema>(schema: T, call: Call, signal: AbortSignal): Promise<Static<T>> {
    const limited = AbortSignal.any([signal, timeLimit(CALL_TIMEOUT_MS)])
    const answer = await this.#send(call, limited)
    if (!succeeded(answer)) throw await faultOf(answer)
    const value = parseJson(await readText(answer))
    if (Value.Check(schema, value)) return value
    const [problem] = Value.Errors(schema, value)
    const where = `${call.method ?? 'GET'} ${call.path}: ${problem?.instancePath ?? ''} ${problem?.message ?? ''}`
    throw new Fault(
      'INTERNAL',
      `the controller's answer is not as expected (other version?): ${where}`,
    )
  }

  async #send(call: Call, signal: AbortSignal): Promise<IncomingMessage> {
    const json = call.body === undefined ? undefined : Buffer.from(JSON.stringify(call.body))
    const headers = {
      ...this.#headers(),
      ...(json === undefined ? {} : { 'content-type': 'application/json' }),
    }
    const method = call.method ?? 'GET'
    return httpCall({ method, url: this.#url(call), headers, body: json }, signal)
  }

  #headers(): Record<string, string> {
    return { authorization: `Bearer ${this.#token}` }
  }

  #url({ path, query = {} }: Call): URL {
    const url = new URL(this.#base + path)
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined) url.searchParams.set(name, String(value))
    }
    return url
  }
}

function succeeded(answer: IncomingMessage): boolean {
  const status = answer.statusCode ?? 0
  return status >= 200 && status < 300
}

function functionPath(name: string): string {
  return `/v1/functions/${encodeURIComponent(name)}`
}

function rolloutPath(id: string): string {
  return `/v1/rollouts/${encodeURIComponent(id)}`
}

function nodePath(id: string): string {
  return `/v1/nodes/${encodeURIComponent(id)}`
}
