import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  connect,
  headers,
  jwtAuthenticator,
  type Msg,
  type NatsConnection,
} from '@nats-io/transport-node'
import { createUser, type KeyPair } from '@nats-io/nkeys'
import { Value } from 'typebox/value'
import { verifyEnvelope, verifyTrust } from '#shared/envelope.ts'
import {
  NodeCommand,
  type Assignment,
  type CommandReply,
  type TrustDocument,
} from '#shared/schemas/command.ts'
import type { FunctionReport, Heartbeat, Hello, LogLine } from '#shared/schemas/health.ts'
import type { Arch, Labels } from '#shared/schemas/names.ts'
import {
  ARTIFACT_HEADERS,
  HEAD_HEADER,
  type ArtifactRange,
  type HelloReply,
  type InvokeHead,
  type InvokeReplyHead,
  JoinReply,
  type JoinToken,
  type LogsRequest,
} from '#shared/schemas/wire.ts'
import { stateDigest } from '#shared/state-digest.ts'
import { subjects } from '#shared/subjects.ts'
import { heartbeatOf, reportOf } from './heartbeat.ts'

const BEAT_MS = 250

export interface TestNodeOptions {
  readonly name: string
  readonly arch?: Arch
  readonly labels?: Labels
}

/** What a node does with an assignment: parts of its report. `undefined`: it does not report the function. */
export type Reaction = (assignment: Assignment) => Partial<FunctionReport> | undefined

/**
 * A node's side of the wire, and nothing more: joins over HTTP, verifies commands, reports, serves calls and logs over a real
 * connection with its own credentials. It runs no functions.
 */
export class TestNode implements AsyncDisposable {
  readonly id: string
  readonly trust: TrustDocument
  /** All commands kept, oldest first; survives disconnects. */
  readonly kept: NodeCommand[] = []
  readonly logRequests: LogsRequest[] = []
  readonly invokes: { head: InvokeHead; body: Buffer }[] = []
  /** Default: everything is ready at once. */
  react: Reaction = () => ({})
  /** When set, every command is refused with this. */
  refuseWith: { code: string; message: string } | undefined
  /** Commands are kept, and answered, this much later. */
  answerAfterMs = 0
  /** What the next heartbeats say differently. */
  different: Partial<Heartbeat> = {}
  logLines: LogLine[] = []
  answer: (head: InvokeHead, body: Buffer) => { head: InvokeReplyHead; body: string | Buffer } = (
    _head,
    body,
  ) => ({ head: { status: 200, headers: [['content-type', 'text/plain']] }, body })
  readonly #options: TestNodeOptions
  readonly #join: JoinReply
  readonly #key: KeyPair
  readonly #boot = randomUUID()
  #seq = 0
  #connection: NatsConnection | undefined
  #beating: Promise<void> = Promise.resolve()

  static async join(token: string, options: TestNodeOptions): Promise<TestNode> {
    const key = createUser()
    const { join, root } = await joinWith(token, key, options)
    return new TestNode(options, join, key, await verifyTrust(join.trust, root, Date.now()))
  }

  private constructor(
    options: TestNodeOptions,
    join: JoinReply,
    key: KeyPair,
    trust: TrustDocument,
  ) {
    this.#options = options
    this.#join = join
    this.#key = key
    this.id = join.node
    this.trust = trust
  }

  get generation(): number {
    return this.kept.at(-1)?.generation ?? 0
  }

  /** Connects, says hello, and beats from now on. */
  async connect(): Promise<void> {
    const connection = await connect({
      servers: this.#join.natsUrls,
      authenticator: jwtAuthenticator(this.#join.userJwt, this.#key.getSeed()),
      inboxPrefix: subjects.inbox(this.id),
      maxReconnectAttempts: -1,
      reconnectTimeWait: 100,
    })
    this.#connection = connection
    const on = (subject: string, handle: (message: Msg) => unknown) => {
      connection.subscribe(subject, {
        callback: (error, message) => {
          if (error === null) void handle(message)
        },
      })
    }
    on(subjects.command(this.id), async (message) => {
      await sleep(this.answerAfterMs)
      message.respond(JSON.stringify(await this.receive(message.json())))
      this.beat()
    })
    on(subjects.invoke(this.id), (message) => this.#invoke(message))
    on(subjects.logs(this.id), (message) => {
      const request: LogsRequest = message.json()
      this.logRequests.push(request)
      const lines = request.tail === 0 ? [] : this.logLines.slice(-request.tail)
      message.respond(JSON.stringify({ lines, dropped: 0 }))
    })
    await this.hello()
    this.beat()
    this.#beating = this.#beatOn(connection)
  }

  /** Goes away without a word. */
  async disconnect(): Promise<void> {
    const connection = this.#connection
    this.#connection = undefined
    await connection?.close()
    await this.#beating
  }

  async hello(): Promise<HelloReply> {
    const { arch = 'amd64', labels = {} } = this.#options
    const hello: Hello = {
      node: this.id,
      generation: this.generation,
      trustVersion: this.trust.version,
      inventory: {
        agentVersion: 'test',
        arch,
        cores: 1,
        memoryMiB: 1024,
        os: 'test',
        kernel: 'test',
        engine: 'process',
        engineVersion: 'test',
        runtimes: ['nodejs', 'python3', 'binary'],
        labels,
        ports: { http: 8000, coap: 5683, grpc: 9000 },
      },
    }
    for (;;) {
      try {
        const message = await this.#live().request(subjects.hello(this.id), JSON.stringify(hello), {
          timeout: 2_000,
        })
        const reply: HelloReply = message.json()
        if (reply.command !== undefined) await this.receive(reply.command)
        return reply
      } catch (error) {
        if (this.#connection === undefined) throw error
        await sleep(100)
      }
    }
  }

  /** Verifies a command as a node does, and keeps it. */
  async receive(envelope: unknown): Promise<CommandReply> {
    const { generation } = this
    const refused = (code: string, message: string): CommandReply => ({
      accepted: false,
      code,
      message,
      generation,
    })
    if (this.refuseWith !== undefined) {
      return refused(this.refuseWith.code, this.refuseWith.message)
    }
    const command = Value.Parse(NodeCommand, await verifyEnvelope(envelope, this.trust, 'command'))
    if (command.node !== this.id) return refused('COMMAND_AUDIENCE', `for ${command.node}`)
    if (command.generation <= this.generation) {
      return refused('COMMAND_REPLAYED', `have ${this.generation}`)
    }
    if (command.expiresAtMs <= Date.now()) return refused('COMMAND_EXPIRED', 'too late')
    this.kept.push(command)
    return { accepted: true, generation: command.generation }
  }

  /** Says now what it runs. */
  beat(): void {
    const command = this.kept.at(-1)
    const functions: FunctionReport[] = []
    for (const assignment of command?.functions ?? []) {
      const reaction = this.react(assignment)
      if (reaction !== undefined) {
        functions.push(reportOf(assignment.fn, assignment.release, reaction))
      }
    }
    this.#seq += 1
    this.publish(
      subjects.health(this.id),
      heartbeatOf(this.id, {
        boot: this.#boot,
        seq: this.#seq,
        generation: this.generation,
        stateDigest: stateDigest(command?.functions ?? []),
        functions,
        ...this.different,
      }),
    )
  }

  publish(subject: string, value: unknown): void {
    this.#connection?.publish(subject, JSON.stringify(value))
  }

  /** One range of an artifact. */
  async fetchRange(
    range: ArtifactRange,
  ): Promise<{ data: Buffer; total: number; code: string | undefined }> {
    const message = await this.#live().request(subjects.artifact, JSON.stringify(range), {
      timeout: 5_000,
    })
    const code = message.headers?.get(ARTIFACT_HEADERS.code)
    return {
      data: Buffer.from(message.data),
      total: Number(message.headers?.get(ARTIFACT_HEADERS.total)),
      code: code === '' ? undefined : code,
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.disconnect()
  }

  #invoke(message: Msg): void {
    const head: InvokeHead = JSON.parse(message.headers?.get(HEAD_HEADER) ?? '')
    const body = Buffer.from(message.data)
    this.invokes.push({ head, body })
    const answer = this.answer(head, body)
    const reply = headers()
    reply.set(HEAD_HEADER, JSON.stringify(answer.head))
    message.respond(answer.body, { headers: reply })
  }

  async #beatOn(connection: NatsConnection): Promise<void> {
    while (this.#connection === connection) {
      await sleep(BEAT_MS)
      if (this.#connection === connection) this.beat()
    }
  }

  #live(): NatsConnection {
    if (this.#connection === undefined) throw new Error(`node ${this.id} is not connected`)
    return this.#connection
  }
}

async function joinWith(
  token: string,
  key: KeyPair,
  { name, arch = 'amd64', labels = {} }: TestNodeOptions,
): Promise<{ join: JoinReply; root: string }> {
  const { url, secret, root }: JoinToken = JSON.parse(Buffer.from(token, 'base64url').toString())
  const response = await fetch(`${url}/v1/join`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ secret, nodeKey: key.getPublicKey(), name, arch, labels }),
  })
  const body = await response.text()
  if (!response.ok) throw new Error(`join refused: ${response.status} ${body}`)
  return { join: Value.Parse(JoinReply, JSON.parse(body)), root }
}
