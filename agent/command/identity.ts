import { setTimeout as sleep } from 'node:timers/promises'
import { createUser, fromSeed } from '@nats-io/nkeys'
import { Type, type Static } from 'typebox'
import { Compile } from 'typebox/compile'
import { lazyValidator } from '#shared/lazy-validator.ts'
import type { Clock } from '#shared/clock.ts'
import { DurableFile, type FileOps } from '#shared/durable-file.ts'
import { verifyTrust } from '#shared/envelope.ts'
import { Fault } from '#shared/fault.ts'
import { Envelope } from '#shared/schemas/command.ts'
import { NodeId, type Arch, type Labels } from '#shared/schemas/names.ts'
import { JoinReply, JoinToken, type JoinRequest } from '#shared/schemas/wire.ts'
import { timeLimit } from '#shared/time-limit.ts'
import { backoffMs } from './backoff.ts'
import type { CommandLog } from './log.ts'

const ANSWER_WITHIN_MS = 10_000
const RETRY_MIN_MS = 250
const RETRY_MAX_MS = 10_000
const REPLY_BYTES_MAX = 1024 * 1024

/** Before enrolment only the key is there: a join whose answer was lost is repeated with the same key. */
const IdentityFile = Type.Object({
  /** Seed of this node's NATS user key; made here, never leaves this host. */
  seed: Type.String(),
  /** The controller took this node out of the fleet: `joined` is of no use any more, but the key is. */
  removed: Type.Optional(Type.Literal(true)),
  joined: Type.Optional(
    Type.Object({
      node: NodeId,
      natsUrls: Type.Array(Type.String(), { minItems: 1 }),
      userJwt: Type.String(),
      rootKeyId: Type.String(),
      trust: Envelope,
    }),
  ),
})
type IdentityFile = Static<typeof IdentityFile>
const fileValidator = Compile(IdentityFile)
const tokenValidator = lazyValidator(JoinToken)
const replyValidator = lazyValidator(JoinReply)

/** Who this node is, and how it logs in. */
export interface Identity {
  readonly node: string
  readonly natsUrls: readonly string[]
  readonly userJwt: string
  readonly seed: string
  /** Pinned: what every trust document goes back to. */
  readonly rootKeyId: string
  readonly trust: Envelope
}

export interface IdentityOptions {
  readonly folder: string
  /** Needed once; not looked at when this node is enrolled. */
  readonly joinToken: string | undefined
  readonly name: string | undefined
  readonly arch: Arch
  readonly labels: Labels
  /** Called before the token is used: what throws here leaves it unused. */
  readonly beforeJoin?: () => Promise<void>
  readonly fs: FileOps
  readonly clock: Clock
  readonly log: CommandLog
}

/**
 * This node's identity from `identity.json`; when there is none, enrols with the join token, and waits for the controller as long
 * as it takes. So it does again after `forgetEnrolment`.
 *
 * @throws Fault `CONFIG_INVALID` (not enrolled and no usable token, or a damaged identity), `JOIN_REFUSED`, `TRUST_INVALID` (the
 *   controller's root is not the one in the token), `STORAGE`; the signal's reason
 */
export async function ensureIdentity(
  options: IdentityOptions,
  signal: AbortSignal,
): Promise<Identity> {
  const { folder, fs, joinToken, log } = options
  const file = new DurableFile({ folder, name: 'identity.json', fs })
  const { value, problems } = await file.read(parseIdentity)
  const removed = value?.removed === true
  if (value?.joined !== undefined && !removed) {
    for (const problem of problems) log.warn({ err: problem }, 'kept identity passed over')
    return { seed: value.seed, ...value.joined }
  }
  if (joinToken === undefined) {
    const damaged = problems.map(({ message }) => `${message}; `).join('')
    throw new Fault(
      'CONFIG_INVALID',
      `${damaged}this node ${removed ? 'was removed from the fleet' : 'is not enrolled'} - run \`shoal node token\` at the controller and set SHOAL_JOIN_TOKEN`,
    )
  }
  const token = parseToken(joinToken)
  await options.beforeJoin?.()
  const seed = value?.seed ?? new TextDecoder().decode(createUser().getSeed())
  if (value === undefined) await file.write(JSON.stringify({ seed } satisfies IdentityFile))
  const reply = await join(token, seed, options, signal)
  // Nothing of the reply is kept before its root is known to be the pinned one.
  await verifyTrust(reply.trust, token.root, options.clock.nowMs())
  const joined = { ...reply, rootKeyId: token.root }
  await file.write(JSON.stringify({ seed, joined } satisfies IdentityFile))
  log.info({ node: reply.node, root: token.root }, 'enrolled')
  return { seed, ...joined }
}

/** Notes that the controller has removed this node: the next start joins anew, with the same key. @throws Fault `STORAGE` */
export async function forgetEnrolment({
  folder,
  fs,
}: Pick<IdentityOptions, 'folder' | 'fs'>): Promise<void> {
  const file = new DurableFile({ folder, name: 'identity.json', fs })
  const { value } = await file.read(parseIdentity)
  if (value !== undefined) await file.write(JSON.stringify({ ...value, removed: true }))
}

/** @throws Fault `CONFIG_INVALID` */
export function parseToken(text: string): JoinToken {
  try {
    const token: unknown = JSON.parse(Buffer.from(text.trim(), 'base64url').toString())
    if (!tokenValidator.Check(token)) throw new TypeError('fields are missing')
    const { protocol } = new URL(token.url)
    if (protocol !== 'http:' && protocol !== 'https:') throw new TypeError(`${protocol} URL`)
    return token
  } catch (error) {
    // The token is a secret: nothing of it goes into the message.
    throw new Fault(
      'CONFIG_INVALID',
      'SHOAL_JOIN_TOKEN is not a join token - copy all of what `shoal node token` printed',
      {},
      { cause: error },
    )
  }
}

function parseIdentity(bytes: Buffer): IdentityFile {
  const value: unknown = JSON.parse(bytes.toString())
  if (!fileValidator.Check(value)) throw new TypeError('not an identity')
  fromSeed(new TextEncoder().encode(value.seed))
  return value
}

async function join(
  token: JoinToken,
  seed: string,
  options: IdentityOptions,
  signal: AbortSignal,
): Promise<JoinReply> {
  const { name, arch, labels, log } = options
  const request: JoinRequest = {
    secret: token.secret,
    nodeKey: fromSeed(new TextEncoder().encode(seed)).getPublicKey(),
    arch,
    labels,
    ...(name === undefined ? {} : { name }),
  }
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await askToJoin(token.url, request, signal)
    } catch (error) {
      signal.throwIfAborted()
      if (Fault.is(error, 'JOIN_REFUSED')) throw error
      const waitMs = backoffMs(attempt, RETRY_MIN_MS, RETRY_MAX_MS)
      if (attempt % 10 === 0) {
        log.warn({ err: error, url: token.url, waitMs }, 'waiting for the controller to enrol')
      }
      await sleep(waitMs, undefined, { signal })
    }
  }
}

/** @throws Fault `JOIN_REFUSED` when asking again would not help; any other error when it may */
async function askToJoin(
  url: string,
  request: JoinRequest,
  signal: AbortSignal,
): Promise<JoinReply> {
  const response = await fetch(new URL('/v1/join', url), {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(request),
    redirect: 'error',
    signal: AbortSignal.any([signal, timeLimit(ANSWER_WITHIN_MS)]),
  })
  const text = await boundedText(response)
  if (response.status >= 400 && response.status < 500 && response.status !== 429) {
    throw new Fault('JOIN_REFUSED', `the controller refused to enrol this node: ${reason(text)}`, {
      status: response.status,
    })
  }
  if (!response.ok) throw new Error(`the controller answered ${response.status}: ${reason(text)}`)
  const reply: unknown = JSON.parse(text)
  if (!replyValidator.Check(reply)) throw new TypeError('the controller sent no join reply')
  return reply
}

async function boundedText(response: Response): Promise<string> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length
    if (bytes > REPLY_BYTES_MAX) throw new RangeError('the answer to the join is too long')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

/** Code and message of an API error, or the start of whatever was sent instead. */
function reason(text: string): string {
  try {
    const { code, message }: { code?: unknown; message?: unknown } = JSON.parse(text)
    if (typeof code === 'string' && typeof message === 'string') return `${code}: ${message}`
  } catch {
    // Not JSON: the text itself has to do.
  }
  return text.slice(0, 200)
}
