import { Type } from 'typebox'
import { Compile } from 'typebox/compile'
import type { Clock } from '#shared/clock.ts'
import { DurableFile, type FileOps } from '#shared/durable-file.ts'
import { verifyTrust } from '#shared/envelope.ts'
import { Fault } from '#shared/fault.ts'
import { Envelope, type TrustDocument } from '#shared/schemas/command.ts'
import type { CommandLog } from './log.ts'

/** Rotations a node can follow before it has to be enrolled again; each is about 1 KB. */
const CHAIN_MAX = 200

const TrustFile = Type.Object({
  chain: Type.Array(Envelope, { minItems: 1, maxItems: CHAIN_MAX }),
})
const validator = Compile(TrustFile)

/** The newest first. */
type Documents = readonly [TrustDocument, ...TrustDocument[]]

export interface TrustKeeperOptions {
  readonly folder: string
  /** Pinned at enrolment. */
  readonly rootKeyId: string
  /** The trust document of the enrolment: where the chain starts, and what is left when `trust.json` is damaged. */
  readonly enrolled: Envelope
  readonly fs: FileOps
  readonly clock: Clock
  readonly log: CommandLog
}

/** The trust document this node goes by: from the pinned root through every rotation, kept in `trust.json`. */
export class TrustKeeper {
  readonly #options: TrustKeeperOptions
  readonly #file: DurableFile
  #chain: readonly Envelope[]
  /** The chain's documents, verified. */
  #documents: Documents

  private constructor(
    options: TrustKeeperOptions,
    file: DurableFile,
    kept: { readonly chain: readonly Envelope[]; readonly documents: Documents },
  ) {
    this.#options = options
    this.#file = file
    this.#chain = kept.chain
    this.#documents = kept.documents
  }

  /**
   * Verifies the kept chain again, from the pinned root on.
   *
   * @throws Fault `TRUST_INVALID` when not even the enrolment's document holds
   */
  static async open(options: TrustKeeperOptions): Promise<TrustKeeper> {
    const { folder, fs, rootKeyId, enrolled, log } = options
    const file = new DurableFile({ folder, name: 'trust.json', fs })
    const { value, problems } = await file.read(async (bytes) => {
      const content: unknown = JSON.parse(bytes.toString())
      if (!validator.Check(content)) throw new TypeError('not a trust chain')
      return { chain: content.chain, documents: await follow(content.chain, rootKeyId, 0) }
    })
    for (const problem of problems) log.warn({ err: problem }, 'kept trust document passed over')
    const kept = value ?? {
      chain: [enrolled],
      documents: await follow([enrolled], rootKeyId, 0),
    }
    return new TrustKeeper(options, file, kept)
  }

  get document(): TrustDocument {
    return this.#documents[0]
  }

  /** The document of a version that this node went by, now or earlier; undefined for any other. */
  documentAt(version: number): TrustDocument | undefined {
    return this.#documents.find((document) => document.version === version)
  }

  /** True when the trust document's time is over: what is kept still runs, nothing new is taken. */
  get expired(): boolean {
    return this.document.expiresAtMs <= this.#options.clock.nowMs()
  }

  /**
   * Follows newer versions, oldest first; those that are kept already are passed over.
   *
   * @throws Fault `TRUST_INVALID` (nothing has changed then), `STORAGE`
   */
  async adopt(envelopes: readonly Envelope[]): Promise<void> {
    const known = new Set(this.#chain.map(({ payload }) => payload))
    const fresh = envelopes.filter(({ payload }) => !known.has(payload))
    if (fresh.length === 0) return
    const chain = [...this.#chain, ...fresh]
    if (chain.length > CHAIN_MAX) {
      throw new Fault('TRUST_INVALID', `more than ${CHAIN_MAX} rotations: enrol this node again`)
    }
    // Only the last one must be in its time: those before it are steps on the way.
    const documents = await follow(chain, this.#options.rootKeyId, this.#options.clock.nowMs())
    await this.#file.write(JSON.stringify({ chain }))
    this.#chain = chain
    this.#documents = documents
    this.#options.log.info({ version: this.document.version }, 'trust document adopted')
  }
}

async function follow(
  chain: readonly Envelope[],
  rootKeyId: string,
  nowMs: number,
): Promise<Documents> {
  const older: TrustDocument[] = []
  let document: TrustDocument | undefined
  for (const [index, envelope] of chain.entries()) {
    const atMs = index === chain.length - 1 ? nowMs : 0
    if (document !== undefined) older.push(document)
    document = await verifyTrust(envelope, document ?? rootKeyId, atMs)
  }
  if (document === undefined) throw new RangeError('an empty trust chain')
  return [document, ...older]
}
