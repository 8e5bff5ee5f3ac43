import * as fs from 'node:fs/promises'
import { exportJWK, generateKeyPair, importJWK, type CryptoKey } from 'jose'
import { systemClock, type Clock } from '#shared/clock.ts'
import { DurableFile } from '#shared/durable-file.ts'
import { keyId, signEnvelope, verifyTrust, type PublicKey, type Role } from '#shared/envelope.ts'
import { Fault } from '#shared/fault.ts'
import type { Envelope, NodeCommand, TrustDocument } from '#shared/schemas/command.ts'

const DAY_MS = 24 * 60 * 60 * 1_000
const TRUST_LIFE_MS = 5 * 365 * DAY_MS
/** A chain longer than this would mean a rotation every month for decades. */
const TRUST_VERSIONS_MAX = 1_000
const ROLES = ['root', 'release', 'command'] as const satisfies readonly Role[]

export interface SigningOptions {
  readonly clock?: Clock
  /** How long a trust document is good; the next version is made at a start when half of it is over. */
  readonly trustLifeMs?: number
}

/** What this controller can sign, and what nodes need to check it. */
export interface Signing {
  /** Pinned by join tokens. */
  readonly rootKeyId: string
  readonly trust: TrustDocument
  /** The newest trust document, signed by the root. */
  trustEnvelope(): Envelope
  /** Every trust document above a version, oldest first: what a node that has that version lacks. */
  trustChain(aboveVersion: number): readonly Envelope[]
  /** @throws Fault `COMMAND_MALFORMED` when the command is too large to be sent */
  signCommand(command: NodeCommand): Promise<Envelope>
}

interface Key {
  readonly kid: string
  readonly key: CryptoKey
  readonly publicKey: PublicKey
}

/**
 * Loads the keys and trust documents in a folder; makes those that are not there yet, each durable before the next.
 *
 * A key file that cannot be read is never replaced: every enrolled node would refuse this controller for ever.
 *
 * @param folder - Private to the controller: `root.json`, `release.json`, `command.json` (private JWK, mode 0600), `trust-<version>.json`
 * @throws Fault `CONFIG_INVALID` for a damaged file, `STORAGE`
 */
export async function ensureKeys(folder: string, options: SigningOptions = {}): Promise<Signing> {
  const { clock = systemClock, trustLifeMs = TRUST_LIFE_MS } = options
  await fs.mkdir(folder, { recursive: true, mode: 0o700 })
  const chain = await loadTrustChain(folder)
  const mayCreate = chain.length === 0
  const keys = {
    root: await ensureKey(folder, 'root', mayCreate),
    release: await ensureKey(folder, 'release', mayCreate),
    command: await ensureKey(folder, 'command', mayCreate),
  }
  const newest = chain.at(-1)?.document
  if (newest !== undefined) assertOurs(newest, keys, folder)
  if (newest === undefined || newest.expiresAtMs - clock.nowMs() < trustLifeMs / 2) {
    const document = await makeTrust(keys, (newest?.version ?? 0) + 1, clock.nowMs() + trustLifeMs)
    const envelope = await signEnvelope(document, [keys.root], 'root')
    await durable(folder, `trust-${document.version}.json`).write(JSON.stringify(envelope))
    chain.push({ document, envelope })
  }
  return new FolderSigning(keys, chain)
}

interface TrustVersion {
  readonly document: TrustDocument
  readonly envelope: Envelope
}

class FolderSigning implements Signing {
  readonly rootKeyId: string
  readonly trust: TrustDocument
  readonly #keys: Record<Role, Key>
  readonly #chain: readonly TrustVersion[]
  readonly #newest: TrustVersion

  constructor(keys: Record<Role, Key>, chain: readonly TrustVersion[]) {
    const newest = chain.at(-1)
    if (newest === undefined) throw new RangeError('no trust document')
    this.#keys = keys
    this.#chain = chain
    this.#newest = newest
    this.rootKeyId = keys.root.kid
    this.trust = newest.document
  }

  trustEnvelope(): Envelope {
    return this.#newest.envelope
  }

  trustChain(aboveVersion: number): readonly Envelope[] {
    return this.#chain
      .filter(({ document }) => document.version > aboveVersion)
      .map(({ envelope }) => envelope)
  }

  signCommand(command: NodeCommand): Promise<Envelope> {
    return signEnvelope(command, [this.#keys.command], 'command')
  }
}

async function ensureKey(folder: string, role: Role, mayCreate: boolean): Promise<Key> {
  const file = durable(folder, `${role}.json`)
  const { value, problems } = await file.read(parseKey)
  if (value !== undefined) return value
  if (problems.length > 0 || !mayCreate) {
    const why = problems.map((problem) => problem.message).join('; ') || `${file.path} is missing`
    throw new Fault(
      'CONFIG_INVALID',
      `${why}: restore it from a backup. Only if there is none, remove ${folder} and enrol every node again`,
      { folder, role },
    )
  }
  const { privateKey } = await generateKeyPair('EdDSA', { crv: 'Ed25519', extractable: true })
  const text = JSON.stringify(await exportJWK(privateKey))
  await file.write(text)
  return parseKey(Buffer.from(text))
}

async function parseKey(bytes: Buffer): Promise<Key> {
  const jwk: Record<string, unknown> = JSON.parse(bytes.toString())
  const { kty, crv, x, d } = jwk
  if (kty !== 'OKP' || crv !== 'Ed25519' || typeof x !== 'string' || typeof d !== 'string') {
    throw new TypeError('not an Ed25519 private key')
  }
  const publicKey: PublicKey = { kty, crv, x }
  const key = await importJWK({ kty, crv, x, d }, 'EdDSA')
  if (key instanceof Uint8Array) throw new TypeError('not an Ed25519 private key')
  return { kid: await keyId(publicKey), key, publicKey }
}

async function makeTrust(
  keys: Record<Role, Key>,
  version: number,
  expiresAtMs: number,
): Promise<TrustDocument> {
  const role = ({ kid }: Key) => ({ keyIds: [kid], threshold: 1 })
  return {
    version,
    expiresAtMs,
    keys: Object.fromEntries(ROLES.map((name) => [keys[name].kid, keys[name].publicKey])),
    roles: { root: role(keys.root), release: role(keys.release), command: role(keys.command) },
  }
}

/** All versions on the disk, each checked against the one before it. */
async function loadTrustChain(folder: string): Promise<TrustVersion[]> {
  const chain: TrustVersion[] = []
  for (let version = 1; version <= TRUST_VERSIONS_MAX; version += 1) {
    const { value, problems } = await durable(folder, `trust-${version}.json`).read(
      async (bytes): Promise<TrustVersion> => {
        const envelope: Envelope = JSON.parse(bytes.toString())
        const anchor = chain.at(-1)?.document ?? (await rootIdIn(folder))
        // Versions past their end still carry the chain: nothing is expired at time 0.
        return { document: await verifyTrust(envelope, anchor, 0), envelope }
      },
    )
    if (problems.length > 0) {
      throw new Fault(
        'CONFIG_INVALID',
        `${problems.map(({ message }) => message).join('; ')}: restore it from a backup`,
        { folder, version },
      )
    }
    if (value === undefined) break
    chain.push(value)
  }
  return chain
}

async function rootIdIn(folder: string): Promise<string> {
  const { value } = await durable(folder, 'root.json').read(parseKey)
  if (value === undefined) throw new Error('root.json cannot be read')
  return value.kid
}

function assertOurs(trust: TrustDocument, keys: Record<Role, Key>, folder: string): void {
  for (const role of ROLES) {
    if (trust.roles[role].keyIds.includes(keys[role].kid)) continue
    throw new Fault(
      'CONFIG_INVALID',
      `${folder}/${role}.json is not the key that trust-${trust.version}.json names: restore both from one backup`,
      { folder, role },
    )
  }
}

function durable(folder: string, name: string): DurableFile {
  return new DurableFile({ folder, name, fs })
}
