import type { Logger } from 'pino'
import { Compile } from 'typebox/compile'
import { Fault } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import { ARTIFACT_HEADERS, ArtifactRange } from '#shared/schemas/wire.ts'
import { CONTROLLERS, subjects } from '#shared/subjects.ts'
import type { Bus, BusRequest } from './bus.ts'

const READS_AT_ONCE = 8
const READS_WAITING_MAX = 512
const rangeValidator = Compile(ArtifactRange)
const INBOX = subjects.inbox('')
const NOTHING = new Uint8Array()

/** Where artifacts are; what this server needs of the catalogue. */
export interface ArtifactReader {
  /** @throws Fault `ARTIFACT_UNAVAILABLE` */
  readRange(
    digest: string,
    offset: number,
    bytes: number,
  ): Promise<{ readonly data: Uint8Array; readonly total: number }>
}

/** Answers ranges of artifacts to nodes, a few at a time, in the order they were asked for. */
export class ArtifactServer {
  readonly #artifacts: ArtifactReader
  readonly #isEnrolled: (node: string) => Promise<boolean>
  readonly #log: Logger
  readonly #waiting: BusRequest[] = []
  readonly #unsubscribe: () => void
  #active = 0
  servedBytes = 0

  constructor(options: {
    readonly bus: Bus
    readonly artifacts: ArtifactReader
    /** False for a node that was removed: its login may be good still. */
    readonly isEnrolled: (node: string) => Promise<boolean>
    readonly log: Logger
  }) {
    this.#artifacts = options.artifacts
    this.#isEnrolled = options.isEnrolled
    this.#log = options.log
    this.#unsubscribe = options.bus.subscribe(subjects.artifact, (message) => this.#take(message), {
      queue: CONTROLLERS,
    })
  }

  close(): void {
    this.#unsubscribe()
    this.#waiting.length = 0
  }

  #take(message: BusRequest): void {
    // An answer goes to where replies go, or this would publish for nodes wherever they name.
    if (message.replyTo?.startsWith(INBOX) !== true) return
    if (this.#active < READS_AT_ONCE) {
      this.#active += 1
      void this.#work(message)
    } else if (this.#waiting.length < READS_WAITING_MAX) {
      this.#waiting.push(message)
    } else {
      refuse(message, new Fault('ARTIFACT_UNAVAILABLE', 'too many nodes fetch now; try again'))
    }
  }

  async #work(first: BusRequest): Promise<void> {
    let message: BusRequest | undefined = first
    while (message !== undefined) {
      await this.#answer(message)
      message = this.#waiting.shift()
    }
    this.#active -= 1
  }

  async #answer(message: BusRequest): Promise<void> {
    try {
      if (!(await this.#isEnrolled(nodeOfInbox(message.replyTo ?? '')))) {
        throw new Fault('ARTIFACT_UNAVAILABLE', 'only nodes of the fleet get artifacts')
      }
      const range = parseRange(message.data)
      const bytes = Math.min(range.bytes, LIMITS.artifactRangeBytesMax)
      const { data, total } = await this.#artifacts.readRange(range.digest, range.offset, bytes)
      message.respond(data, { [ARTIFACT_HEADERS.total]: String(total) })
      this.servedBytes += data.length
    } catch (error) {
      const fault = Fault.from(error)
      if (fault.code === 'INTERNAL') this.#log.error({ err: error }, 'artifact not served')
      refuse(message, fault)
    }
  }
}

/** A node can hear replies only below its own inbox, see `subjects.inbox`; its id has no `_`. */
function nodeOfInbox(replyTo: string): string {
  return replyTo.slice(INBOX.length, replyTo.indexOf('.')).replaceAll('_', '-')
}

function parseRange(data: Uint8Array): ArtifactRange {
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder().decode(data))
  } catch (error) {
    throw new Fault('REQUEST_INVALID', 'an artifact request is JSON', {}, { cause: error })
  }
  if (rangeValidator.Check(value)) return value
  const problem = rangeValidator.Errors(value)[0]
  throw new Fault('REQUEST_INVALID', `${problem?.instancePath ?? ''} ${problem?.message ?? ''}`)
}

function refuse(message: BusRequest, fault: Fault): void {
  message.respond(NOTHING, {
    [ARTIFACT_HEADERS.code]: fault.code,
    // A header value is one line.
    [ARTIFACT_HEADERS.message]: fault.message.replaceAll(/[\r\n]+/g, ' ').slice(0, 500),
  })
}
