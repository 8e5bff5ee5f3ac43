import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import type { Clock } from '#shared/clock.ts'
import { Fault } from '#shared/fault.ts'
import type { Envelope } from '#shared/schemas/command.ts'
import type { NewToken } from '#shared/schemas/api.ts'
import type { JoinReply, JoinRequest, JoinToken } from '#shared/schemas/wire.ts'
import type { JoinTokenRow, NodeRow, Store, StoreTransaction } from '../store/index.ts'

const TOKEN_TTL_MS = 24 * 3_600_000
const TOKENS_MAX = 1_000
const NODE_ID_CHARS_MAX = 63

export interface EnrolmentOptions {
  readonly store: Store
  readonly clock: Clock
  /** What nodes pin and check commands against. */
  readonly rootKeyId: string
  readonly trustEnvelope: () => Envelope | Promise<Envelope>
  /** A NATS user JWT for exactly this node's subjects. */
  readonly issueNodeUser: (node: string, nodeKey: string) => Promise<string>
  readonly natsUrls: readonly string[]
  /** Where nodes reach this API. */
  readonly apiUrl: () => string
  /** After a node has joined. */
  readonly onJoined: (node: string) => void
}

/** Join tokens, and what a node gets for one. */
export class Enrolment {
  readonly #options: EnrolmentOptions

  constructor(options: EnrolmentOptions) {
    this.#options = options
  }

  /** The token is shown once; only a hash of its secret is kept. */
  async createToken({
    ttlMs = TOKEN_TTL_MS,
    uses = 1,
  }: {
    readonly ttlMs?: number | undefined
    readonly uses?: number | undefined
  }): Promise<NewToken> {
    const { store, clock, rootKeyId, apiUrl, natsUrls } = this.#options
    const secret = randomBytes(32).toString('base64url')
    const nowMs = clock.nowMs()
    const expiresAtMs = nowMs + ttlMs
    await store.transaction(async (tx) => {
      const live = await dropExpired(tx, nowMs)
      if (live.length >= TOKENS_MAX) {
        throw new Fault('CONFLICT', `there are ${live.length} join tokens; wait for some to expire`)
      }
      await tx.putJoinToken({
        id: randomBytes(8).toString('hex'),
        secretHash: hashOf(secret).toString('hex'),
        createdAtMs: nowMs,
        expiresAtMs,
        usesLeft: uses,
      })
    })
    const token: JoinToken = { url: apiUrl(), secret, root: rootKeyId }
    const warning = loopbackWarning(token.url, natsUrls)
    return {
      token: Buffer.from(JSON.stringify(token)).toString('base64url'),
      expiresAtMs,
      ...(warning === undefined ? {} : { warning }),
    }
  }

  /**
   * Enrols a node. The same node key with the same token gets the same id again, so a lost reply costs no use.
   *
   * @throws Fault `JOIN_REFUSED`, without saying whether the token was unknown, used up or expired to somebody without one
   */
  async join(request: JoinRequest): Promise<JoinReply> {
    const { store, clock, issueNodeUser, natsUrls, trustEnvelope, onJoined } = this.#options
    const nowMs = clock.nowMs()
    const node = await store.transaction(async (tx) => {
      const known = await tx.nodeByKey(request.nodeKey)
      const token = findToken(await tx.joinTokens(), request.secret, nowMs)
      // A node that was removed needs a token that was made since, or a use of one.
      const again =
        known !== undefined && known.deletedAtMs === undefined && known.token === token.id
      if (!again) {
        if (token.usesLeft < 1) {
          throw new Fault('JOIN_REFUSED', 'this join token is used up: make a new one')
        }
        await tx.putJoinToken({ ...token, usesLeft: token.usesLeft - 1 })
      }
      const row: NodeRow = {
        id: known?.id ?? (await freeId(tx, request.name ?? 'node')),
        nodeKey: request.nodeKey,
        arch: request.arch,
        labels: request.labels,
        createdAtMs: known?.createdAtMs ?? nowMs,
        lastSeenMs: known?.lastSeenMs ?? 0,
        token: token.id,
      }
      await tx.putNode(row)
      return row.id
    })
    const userJwt = await issueNodeUser(node, request.nodeKey)
    onJoined(node)
    return { node, natsUrls: [...natsUrls], userJwt, trust: await trustEnvelope() }
  }
}

/** An address that names the host itself leads an agent elsewhere to its own host. */
function loopbackWarning(apiUrl: string, natsUrls: readonly string[]): string | undefined {
  const problems = [
    ...(namesItself(apiUrl) ? [`the API is at ${apiUrl} (SHOAL_API_HOST, SHOAL_API_URL)`] : []),
    ...(natsUrls.every(namesItself)
      ? [`NATS is at ${natsUrls.join(', ')} (SHOAL_NATS_HOST, SHOAL_NATS_PUBLIC_URL)`]
      : []),
  ]
  return problems.length === 0
    ? undefined
    : `only an agent on this very host can use this token: ${problems.join(', ')}`
}

function namesItself(url: string): boolean {
  return /^(?:localhost|127\.[\d.]+|\[::1\])$/.test(URL.parse(url)?.hostname ?? '')
}

/** The token with this secret. Every token is compared, each in constant time. */
function findToken(tokens: readonly JoinTokenRow[], secret: string, nowMs: number): JoinTokenRow {
  const hash = hashOf(secret)
  let found: JoinTokenRow | undefined
  for (const token of tokens) {
    if (timingSafeEqual(Buffer.from(token.secretHash, 'hex'), hash)) found = token
  }
  if (found === undefined) throw new Fault('JOIN_REFUSED', 'this join token is not known here')
  if (found.expiresAtMs <= nowMs) {
    throw new Fault('JOIN_REFUSED', 'this join token has expired: make a new one')
  }
  return found
}

async function dropExpired(tx: StoreTransaction, nowMs: number): Promise<JoinTokenRow[]> {
  const live: JoinTokenRow[] = []
  for (const token of await tx.joinTokens()) {
    if (token.expiresAtMs <= nowMs) await tx.deleteJoinToken(token.id)
    else live.push(token)
  }
  return live
}

/** The wanted id, or with `-2`, `-3`, ... behind it. Ids of deleted nodes stay taken: old credentials name them. */
async function freeId(tx: StoreTransaction, wanted: string): Promise<string> {
  for (let attempt = 1; attempt <= 10_000; attempt += 1) {
    const suffix = attempt === 1 ? '' : `-${attempt}`
    const stem = wanted.slice(0, NODE_ID_CHARS_MAX - suffix.length).replace(/-+$/, '')
    const id = `${stem}${suffix}`
    if ((await tx.node(id)) === undefined) return id
  }
  throw new Fault('CONFLICT', `no free node id like ${wanted}: give the node another name`)
}

function hashOf(secret: string): Buffer {
  return createHash('sha256').update(secret).digest()
}
