import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import {
  connect,
  headers,
  jwtAuthenticator,
  type Msg,
  type NatsConnection,
  type Subscription,
} from '@nats-io/transport-node'
import { importJWK, type JWK } from 'jose'
import {
  ensureKeys,
  ensureNatsAuthority,
  type NatsAuthority,
  type Signing,
} from '#controller/signing/index.ts'
import type { Signer } from '#shared/envelope.ts'
import type { Assignment, CommandReply, Envelope } from '#shared/schemas/command.ts'
import type { Heartbeat, Hello } from '#shared/schemas/health.ts'
import {
  ARTIFACT_HEADERS,
  type ArtifactRange,
  type HelloReply,
  type JoinReply,
  type JoinRequest,
} from '#shared/schemas/wire.ts'
import { subjects } from '#shared/subjects.ts'
import { natsScope, type NatsScope } from './nats.ts'
import { freePort } from './ports.ts'
import { commandFor } from './signer.ts'
import { tempFolder } from './temp.ts'

const SECRET = 'a-secret-that-is-long-enough'

/**
 * The controller's side of the wire, and nothing more: real keys, real nats-server with real node accounts, join over HTTP, hello,
 * heartbeats, artifact ranges. For tests of the agent.
 */
export class TinyController implements AsyncDisposable {
  readonly signing: Signing
  readonly authority: NatsAuthority
  readonly nats: NatsScope
  readonly connection: NatsConnection
  readonly hellos: Hello[] = []
  readonly heartbeats: Heartbeat[] = []
  readonly joins: JoinRequest[] = []
  readonly ranges: ArtifactRange[] = []
  readonly artifacts = new Map<string, Buffer>()
  /** Answer to a join; replaced by tests of refusals. */
  answerJoin: (request: JoinRequest) => Promise<{ status: number; body: unknown }>
  /** Answer to the next hellos. */
  helloReply: HelloReply = {}
  /** Called for each range before it is answered; may throw, wait or change the bytes. */
  onRange: (range: ArtifactRange, bytes: Buffer) => Buffer | Promise<Buffer> = (_, bytes) => bytes
  #hearing: Subscription | undefined
  readonly #http: Server
  readonly #rootFile: string
  readonly #stack: AsyncDisposableStack

  private constructor(parts: {
    readonly signing: Signing
    readonly authority: NatsAuthority
    readonly nats: NatsScope
    readonly connection: NatsConnection
    readonly http: Server
    readonly rootFile: string
    readonly stack: AsyncDisposableStack
  }) {
    this.signing = parts.signing
    this.authority = parts.authority
    this.nats = parts.nats
    this.connection = parts.connection
    this.#http = parts.http
    this.#rootFile = parts.rootFile
    this.#stack = parts.stack
    this.answerJoin = (request) => this.#join(request)
    this.#http.on('request', (request, response) => void this.#serve(request, response))
    this.#subscribe()
  }

  static async start(): Promise<TinyController> {
    await using stack = new AsyncDisposableStack()
    const folder = stack.use(await tempFolder())
    const signing = await ensureKeys(folder.join('keys'))
    const port = await freePort()
    const authority = await ensureNatsAuthority(folder.join('nats'), { port })
    const nats = stack.use(await natsScope({ port, config: () => authority.serverConfig }))
    const { jwt, seed } = authority.controllerCreds
    const connection = await connect({
      servers: nats.url,
      authenticator: jwtAuthenticator(jwt, new TextEncoder().encode(seed)),
      maxReconnectAttempts: -1,
      reconnectTimeWait: 50,
    })
    stack.defer(() => connection.close())
    const http = createServer().listen(0, '127.0.0.1')
    await once(http, 'listening')
    stack.defer(async () => {
      http.closeAllConnections()
      await new Promise((resolve) => {
        http.close(resolve)
      })
    })
    return new TinyController({
      signing,
      authority,
      nats,
      connection,
      http,
      rootFile: folder.join('keys', 'root.json'),
      stack: stack.move(),
    })
  }

  /** URL of its API. */
  get url(): string {
    const address = this.#http.address()
    if (address === null || typeof address === 'string') throw new TypeError('a TCP address')
    return `http://127.0.0.1:${address.port}`
  }

  /** A join token; `root` pins another key than the right one. */
  token(root: string = this.signing.rootKeyId): string {
    const token = { url: this.url, secret: SECRET, root }
    return Buffer.from(JSON.stringify(token)).toString('base64url')
  }

  /** The root's private key: for rotations that the product does not do by itself. */
  async rootSigner(): Promise<Signer> {
    const jwk: JWK = JSON.parse(await readFile(this.#rootFile, 'utf8'))
    const key = await importJWK(jwk, 'EdDSA')
    if (key instanceof Uint8Array) throw new TypeError('a private key')
    return { kid: this.signing.rootKeyId, key }
  }

  /** Keeps bytes as an artifact. @returns what an assignment says of it */
  addArtifact(bytes: Buffer): Assignment['artifact'] {
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
    this.artifacts.set(digest, bytes)
    return { digest, bytes: bytes.length }
  }

  signed(node: string, generation: number, functions: Assignment[] = []): Promise<Envelope> {
    return this.signing.signCommand(commandFor(node, generation, { functions }))
  }

  /** Stops, or starts again, to answer hellos: a node then meets "no responders". */
  hearHellos(hear: boolean): void {
    this.#hearing?.unsubscribe()
    this.#hearing = hear
      ? this.#on(subjects.helloAll, (message) => {
          this.hellos.push(message.json())
          message.respond(JSON.stringify(this.helloReply))
        })
      : undefined
  }

  /** Sends a command (or anything) to a node. */
  async send(node: string, envelope: unknown): Promise<CommandReply> {
    const payload = typeof envelope === 'string' ? envelope : JSON.stringify(envelope)
    const reply = await this.connection.request(subjects.command(node), payload, { timeout: 5_000 })
    return reply.json()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync()
  }

  #subscribe(): void {
    this.hearHellos(true)
    this.#on(subjects.healthAll, (message) => {
      this.heartbeats.push(message.json())
    })
    this.#on(subjects.artifact, (message) => this.#range(message))
  }

  #on(subject: string, handle: (message: Msg) => void | Promise<void>): Subscription {
    return this.connection.subscribe(subject, {
      callback: (error, message) => {
        if (error === null) void handle(message)
      },
    })
  }

  async #range(message: Msg): Promise<void> {
    const range: ArtifactRange = message.json()
    this.ranges.push(range)
    const reply = headers()
    const artifact = this.artifacts.get(range.digest)
    if (artifact === undefined) {
      reply.set(ARTIFACT_HEADERS.code, 'NOT_FOUND')
      reply.set(ARTIFACT_HEADERS.message, 'no such artifact')
      message.respond('', { headers: reply })
      return
    }
    reply.set(ARTIFACT_HEADERS.total, String(artifact.length))
    const bytes = artifact.subarray(range.offset, range.offset + range.bytes)
    message.respond(await this.onRange(range, bytes), { headers: reply })
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    const join: JoinRequest = JSON.parse(Buffer.concat(chunks).toString())
    this.joins.push(join)
    const { status, body } = await this.answerJoin(join)
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
  }

  async #join({ secret, nodeKey, name }: JoinRequest): Promise<{ status: number; body: unknown }> {
    if (secret !== SECRET) {
      return { status: 403, body: { code: 'JOIN_REFUSED', message: 'no such token' } }
    }
    const node = name ?? 'node-1'
    const body: JoinReply = {
      node,
      natsUrls: [this.nats.url],
      userJwt: await this.authority.issueNodeUser(node, nodeKey),
      trust: this.signing.trustEnvelope(),
    }
    return { status: 200, body }
  }
}
