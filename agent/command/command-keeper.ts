import { createHash } from 'node:crypto'
import { Type, type Static } from 'typebox'
import { Compile } from 'typebox/compile'
import { lazyValidator } from '#shared/lazy-validator.ts'
import type { Clock } from '#shared/clock.ts'
import { DurableFile, type FileOps } from '#shared/durable-file.ts'
import { isEnvelope, verifyEnvelope } from '#shared/envelope.ts'
import { Fault } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import {
  Envelope,
  NodeCommand,
  type CommandReply,
  type TrustDocument,
} from '#shared/schemas/command.ts'
import type { Refusal } from '#shared/schemas/health.ts'
import { cutText } from '#shared/text.ts'
import type { CommandLog } from './log.ts'
import type { TrustKeeper } from './trust-keeper.ts'

const REFUSAL_CHARS_MAX = 1_000

const CommandFile = Type.Object({
  receivedAtMs: Type.Integer(),
  envelope: Envelope,
  /** Of the trust document by which it was accepted; absent: written by an earlier agent. */
  trustVersion: Type.Optional(Type.Integer()),
})
const HighestFile = Type.Object({
  generation: Type.Integer({ minimum: 0 }),
  /** sha256 of the payload that had it, so that exactly this one may come again when it was lost here. */
  payload: Type.String(),
})
const commandValidator = lazyValidator(NodeCommand)
const commandFileValidator = Compile(CommandFile)
const highestValidator = Compile(HighestFile)

export interface CommandKeeperOptions {
  readonly folder: string
  /** This node's id: the only audience it takes commands for. */
  readonly node: string
  readonly trust: Pick<TrustKeeper, 'document' | 'documentAt' | 'expired'>
  readonly fs: FileOps
  readonly clock: Clock
  readonly log: CommandLog
}

interface Kept {
  readonly command: NodeCommand
  readonly envelope: Envelope
  readonly trustVersion: number
}

/**
 * The desired state this node has accepted: verified, kept on the disk before it is acknowledged, verified again at every start,
 * by the trust document of its time: a key that has been replaced since signs nothing new, and takes nothing away.
 *
 * `command.json` holds the envelope, `command.json.old` the one before, `highest.json` the highest generation ever accepted: with
 * that a rollback is refused even when the command itself was lost.
 */
export class CommandKeeper {
  readonly #options: CommandKeeperOptions
  readonly #commandFile: DurableFile
  readonly #highestFile: DurableFile
  #kept: Kept | undefined
  #highest: Static<typeof HighestFile> = { generation: 0, payload: '' }
  #refusal: Refusal | undefined
  #turn: Promise<unknown> = Promise.resolve()

  private constructor(options: CommandKeeperOptions) {
    const { folder, fs } = options
    this.#options = options
    this.#commandFile = new DurableFile({ folder, fs, name: 'command.json' })
    this.#highestFile = new DurableFile({ folder, fs, name: 'highest.json' })
  }

  /** Reads what was kept. Damaged files are passed over with a warning and never stop the agent. */
  static async open(options: CommandKeeperOptions): Promise<CommandKeeper> {
    const keeper = new CommandKeeper(options)
    await keeper.#load()
    return keeper
  }

  /** What shall run here; undefined before the first command. */
  get command(): NodeCommand | undefined {
    return this.#kept?.command
  }

  /** Of the kept command, 0 for none. */
  get generation(): number {
    return this.#kept?.command.generation ?? 0
  }

  /** The last refusal since a command was accepted. */
  get refusal(): Refusal | undefined {
    return this.#refusal
  }

  /** True when the envelope is the one that is kept: nothing to do, nothing to refuse. */
  holds(envelope: Envelope): boolean {
    return this.#kept?.envelope.payload === envelope.payload
  }

  /**
   * Verifies and keeps a command; one at a time, in the order of the calls. `accepted` means that it is on the disk.
   * What is refused, and why, is in the reply and in `refusal`; nothing is thrown.
   */
  async receive(envelope: unknown): Promise<CommandReply> {
    const result = this.#turn.then(() => this.#receive(envelope))
    this.#turn = result
    return result
  }

  async #receive(envelope: unknown): Promise<CommandReply> {
    const { clock, log } = this.#options
    try {
      const kept = await this.#verifyNew(envelope)
      await this.#keep(kept)
      this.#refusal = undefined
      const { generation, functions } = kept.command
      log.info({ generation, functions: functions.length }, 'command accepted')
      return { accepted: true, generation }
    } catch (error) {
      const { code, message } = Fault.from(error)
      const text = cutText(message, REFUSAL_CHARS_MAX)
      const generation = this.#highest.generation
      // Sent twice, as a controller may that did not hear our answer: nothing is wrong with what runs here.
      if (code === 'COMMAND_REPLAYED' && isEnvelope(envelope) && this.holds(envelope)) {
        return { accepted: false, code, message: text, generation }
      }
      const refused = claimedGeneration(envelope)
      this.#refusal = {
        code,
        message: text,
        atMs: clock.nowMs(),
        ...(refused === undefined ? {} : { generation: refused }),
      }
      log.warn({ err: error, code, generation }, 'command refused')
      return { accepted: false, code, message: text, generation }
    }
  }

  async #verifyNew(envelope: unknown): Promise<Kept> {
    const { clock, trust } = this.#options
    const kept = await this.#verify(envelope, trust.document)
    const { generation, expiresAtMs } = kept.command
    const highest = this.#highest
    const lost = this.#kept?.command.generation !== generation && digest(kept) === highest.payload
    if (generation <= highest.generation && !lost) {
      throw new Fault(
        'COMMAND_REPLAYED',
        `generation ${generation} is not above ${highest.generation}, which this node has accepted`,
        { generation, highest: highest.generation },
      )
    }
    if (expiresAtMs <= clock.nowMs()) {
      const expired = new Date(expiresAtMs).toISOString()
      throw new Fault(
        'COMMAND_EXPIRED',
        `expired at ${expired}; this node's clock says ${new Date(clock.nowMs()).toISOString()}`,
        { generation },
      )
    }
    if (trust.expired) {
      throw new Fault('TRUST_INVALID', 'the trust document of this node has expired', {
        version: trust.document.version,
      })
    }
    return kept
  }

  /** What must hold of a command whenever it is read: signature, shape, audience. Times are for new ones. */
  async #verify(envelope: unknown, trust: TrustDocument): Promise<Kept> {
    const { node } = this.#options
    if (!isEnvelope(envelope)) throw new Fault('COMMAND_MALFORMED', 'not an envelope')
    const command = await verifyEnvelope(envelope, trust, 'command')
    if (!commandValidator.Check(command)) {
      const problems = commandValidator.Errors(command).slice(0, 5)
      throw new Fault(
        'COMMAND_MALFORMED',
        problems.map(({ instancePath, message }) => `${instancePath || '/'} ${message}`).join('; '),
      )
    }
    if (command.node !== node) {
      throw new Fault('COMMAND_AUDIENCE', `meant for node ${command.node}, this is ${node}`)
    }
    checkFunctions(command)
    const { payload, signatures } = envelope
    return { command, envelope: { payload, signatures }, trustVersion: trust.version }
  }

  /**
   * The command first, its generation second: a cut between the two leaves the new command, whose generation then counts. The
   * other way round a node would refuse the command that it has not got.
   */
  async #keep(kept: Kept): Promise<void> {
    const receivedAtMs = this.#options.clock.nowMs()
    const { envelope, trustVersion } = kept
    const record = { receivedAtMs, envelope, trustVersion }
    await this.#commandFile.write(JSON.stringify(record))
    const highest = { generation: kept.command.generation, payload: digest(kept) }
    await this.#highestFile.write(JSON.stringify(highest))
    this.#kept = kept
    this.#highest = highest
  }

  async #load(): Promise<void> {
    const { log, trust } = this.#options
    const command = await this.#commandFile.read((bytes) => {
      const record: unknown = JSON.parse(bytes.toString())
      if (!commandFileValidator.Check(record)) throw new TypeError('not a kept command')
      const { envelope, trustVersion = trust.document.version } = record
      return this.#verify(envelope, trust.documentAt(trustVersion) ?? trust.document)
    })
    const highest = await this.#highestFile.read((bytes) => {
      const record: unknown = JSON.parse(bytes.toString())
      if (!highestValidator.Check(record)) throw new TypeError('not a generation')
      return record
    })
    for (const problem of [...command.problems, ...highest.problems]) {
      log.warn({ err: problem }, 'kept file passed over')
    }
    this.#kept = command.value
    this.#highest = highest.value ?? this.#highest
    if (command.value !== undefined && this.generation > this.#highest.generation) {
      this.#highest = { generation: this.generation, payload: digest(command.value) }
    }
  }
}

function checkFunctions({ functions }: NodeCommand): void {
  const names = new Set<string>()
  for (const { fn, settings } of functions) {
    if (names.has(fn)) throw new Fault('COMMAND_MALFORMED', `function ${fn} comes twice`)
    names.add(fn)
    const bytes = Object.entries(settings.env).reduce(
      (sum, [name, value]) => sum + Buffer.byteLength(name) + Buffer.byteLength(value),
      0,
    )
    if (bytes > LIMITS.envBytesMax) {
      throw new Fault(
        'COMMAND_MALFORMED',
        `environment of ${fn} has ${bytes} bytes, at most ${LIMITS.envBytesMax} are allowed`,
      )
    }
  }
}

/** What a refused command says of itself, believed by nobody: it only tells which one was refused. */
function claimedGeneration(envelope: unknown): number | undefined {
  if (!isEnvelope(envelope) || envelope.payload.length > LIMITS.commandBytesMax * 2)
    return undefined
  try {
    const payload: unknown = JSON.parse(Buffer.from(envelope.payload, 'base64url').toString())
    const generation: unknown = Object(payload).generation
    return typeof generation === 'number' && Number.isSafeInteger(generation)
      ? generation
      : undefined
  } catch {
    return undefined
  }
}

function digest({ envelope }: Kept): string {
  return createHash('sha256').update(envelope.payload).digest('hex')
}
