import {
  calculateJwkThumbprint,
  flattenedVerify,
  GeneralSign,
  importJWK,
  type CryptoKey,
  type KeyObject,
} from 'jose'
import { Compile } from 'typebox/compile'
import { Fault } from './fault.ts'
import { LIMITS } from './limits.ts'
import { Envelope, TrustDocument } from './schemas/command.ts'

/** Who may sign what; a role of the trust document. */
export type Role = keyof TrustDocument['roles']

/** `typ` of each role's envelopes: what one role signed can never be taken for another's. */
const TYPES = {
  root: 'shoal-trust+jws',
  release: 'shoal-release+jws',
  command: 'shoal-command+jws',
} as const satisfies Record<Role, string>

/** An Ed25519 public key as the trust document holds it. */
export type PublicKey = TrustDocument['keys'][string]

/** A private key with its key id. */
export interface Signer {
  readonly kid: string
  readonly key: CryptoKey | KeyObject
}

const envelopeValidator = Compile(Envelope)
const trustValidator = Compile(TrustDocument)
const BASE64URL = /^[A-Za-z0-9_-]*$/

/** The key's id: RFC 7638 thumbprint, SHA-256, base64url. */
export function keyId(key: PublicKey): Promise<string> {
  const { kty, crv, x } = key
  return calculateJwkThumbprint({ kty, crv, x }, 'sha256')
}

/**
 * Signs a value as JSON: JWS general serialisation (RFC 7515 section 7.2.1), one signature per signer.
 *
 * @throws Fault `COMMAND_MALFORMED` when the payload is above what a receiver takes
 */
export async function signEnvelope(
  payload: unknown,
  signers: readonly Signer[],
  role: Role,
): Promise<Envelope> {
  const bytes = new TextEncoder().encode(JSON.stringify(payload))
  if (bytes.length > LIMITS.commandBytesMax) {
    throw new Fault(
      'COMMAND_MALFORMED',
      `payload has ${bytes.length} bytes, at most ${LIMITS.commandBytesMax} are allowed`,
      { bytes: bytes.length, bytesMax: LIMITS.commandBytesMax },
    )
  }
  const sign = new GeneralSign(bytes)
  for (const { kid, key } of signers) {
    sign.addSignature(key).setProtectedHeader({ alg: 'EdDSA', typ: TYPES[role], kid })
  }
  const jws = await sign.sign()
  return {
    payload: jws.payload,
    signatures: jws.signatures.map(({ protected: head, signature }) => ({
      protected: head ?? '',
      signature,
    })),
  }
}

/**
 * The payload of an envelope that enough keys of the role have signed.
 *
 * Signatures are counted here, by distinct key: `jose`'s general verify returns at the first good one.
 * Signatures of keys that the role does not have are passed over, as TUF does, so that a rotation can carry both.
 *
 * @throws Fault `COMMAND_MALFORMED`, `COMMAND_KEY_UNKNOWN` (no signature by a key of the role),
 *   `COMMAND_SIGNATURE` (fewer good ones than the threshold)
 */
export async function verifyEnvelope(
  envelope: unknown,
  trust: TrustDocument,
  role: Role,
): Promise<unknown> {
  const { payload, signatures } = parseEnvelope(envelope)
  const headers = signatures.map((signature) => parseHeader(signature.protected, role))
  const { keyIds, threshold } = trust.roles[role]
  const known = new Set(keyIds)
  const good = new Set<string>()
  const tried = new Set<string>()
  for (const [index, signature] of signatures.entries()) {
    const kid = headers[index]?.kid ?? ''
    const key = known.has(kid) && Object.hasOwn(trust.keys, kid) ? trust.keys[kid] : undefined
    // Two ids for one key would count it twice: an id is only good as the thumbprint of its key.
    if (key === undefined || good.has(kid) || (await keyId(key)) !== kid) continue
    tried.add(kid)
    if (await signatureHolds(payload, signature, key)) good.add(kid)
  }
  if (good.size >= Math.max(1, threshold)) return parsePayload(payload)
  const signedBy = headers.map(({ kid }) => kid)
  if (tried.size === 0) {
    throw new Fault('COMMAND_KEY_UNKNOWN', `no key of role ${role} has signed this`, {
      role,
      signedBy,
      trustVersion: trust.version,
    })
  }
  throw new Fault(
    'COMMAND_SIGNATURE',
    `${good.size} good signatures by keys of role ${role}, ${threshold} are needed`,
    { role, good: good.size, threshold, signedBy },
  )
}

/**
 * The trust document in an envelope, checked against what is trusted already: the root key id pinned at enrolment, or the
 * previous document. A new version must be signed by the roots of both the old and the new one (TUF 1.0, section 5.3).
 *
 * @throws Fault `TRUST_INVALID`
 */
export async function verifyTrust(
  envelope: unknown,
  anchor: string | TrustDocument,
  nowMs: number,
): Promise<TrustDocument> {
  try {
    const document = await readTrust(envelope)
    if (document.expiresAtMs <= nowMs) {
      throw new Fault(
        'TRUST_INVALID',
        `expired at ${new Date(document.expiresAtMs).toISOString()}; is this host's clock right?`,
      )
    }
    if (typeof anchor === 'string') {
      await checkPinned(envelope, document, anchor)
    } else {
      if (document.version <= anchor.version) {
        throw new Fault(
          'TRUST_INVALID',
          `version ${document.version} is not above ${anchor.version}, which is trusted already`,
        )
      }
      await verifyEnvelope(envelope, anchor, 'root')
    }
    await verifyEnvelope(envelope, document, 'root')
    return document
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    throw new Fault('TRUST_INVALID', `trust document refused: ${message}`, {}, { cause: error })
  }
}

async function checkPinned(
  envelope: unknown,
  document: TrustDocument,
  pinned: string,
): Promise<void> {
  if (!document.roles.root.keyIds.includes(pinned)) {
    throw new Fault(
      'TRUST_INVALID',
      `its root keys are ${document.roles.root.keyIds.join(', ')}, the pinned one is ${pinned}`,
    )
  }
  // The pinned key itself must have signed, whatever the threshold among the others.
  const only = { root: { keyIds: [pinned], threshold: 1 } }
  const roles = { ...document.roles, ...only }
  await verifyEnvelope(envelope, { ...document, roles }, 'root')
}

/** Reads a trust document without trusting it yet. */
async function readTrust(envelope: unknown): Promise<TrustDocument> {
  const document = parsePayload(parseEnvelope(envelope).payload)
  if (!trustValidator.Check(document)) {
    throw new Fault('TRUST_INVALID', describe(trustValidator.Errors(document)))
  }
  for (const [id, key] of Object.entries(document.keys)) {
    if ((await keyId(key)) !== id) throw new Fault('TRUST_INVALID', `key ${id} has another id`)
  }
  for (const [role, { keyIds, threshold }] of Object.entries(document.roles)) {
    const missing = keyIds.filter((id) => !Object.hasOwn(document.keys, id))
    if (missing.length > 0)
      throw new Fault('TRUST_INVALID', `role ${role} lacks key ${missing.join(', ')}`)
    if (new Set(keyIds).size < threshold) {
      throw new Fault('TRUST_INVALID', `role ${role} has fewer keys than its threshold`)
    }
  }
  return document
}

/** True for what has the shape of an envelope; says nothing of its signatures. */
export function isEnvelope(value: unknown): value is Envelope {
  return envelopeValidator.Check(value)
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function parseEnvelope(envelope: unknown): Envelope {
  if (!envelopeValidator.Check(envelope)) {
    throw new Fault(
      'COMMAND_MALFORMED',
      `not an envelope: ${describe(envelopeValidator.Errors(envelope))}`,
    )
  }
  // 4 characters of base64url are 3 bytes.
  if (envelope.payload.length > Math.ceil((LIMITS.commandBytesMax * 4) / 3)) {
    throw new Fault('COMMAND_MALFORMED', `payload is above ${LIMITS.commandBytesMax} bytes`)
  }
  if (!BASE64URL.test(envelope.payload)) {
    throw new Fault('COMMAND_MALFORMED', 'payload is not base64url')
  }
  return envelope
}

/** The one header we write; anything else (another algorithm, `crit`, another type) is refused. */
function parseHeader(text: string, role: Role): { readonly kid: string } {
  const header = decodeJson(text, 'protected header')
  if (!isRecord(header)) {
    throw new Fault('COMMAND_MALFORMED', 'protected header is not an object')
  }
  const { alg, typ, kid, ...rest } = header
  if (alg !== 'EdDSA') {
    throw new Fault('COMMAND_MALFORMED', `algorithm ${String(alg)} where EdDSA is required`)
  }
  if (typ !== TYPES[role]) {
    throw new Fault('COMMAND_MALFORMED', `type ${String(typ)} where ${TYPES[role]} is required`)
  }
  if (typeof kid !== 'string') throw new Fault('COMMAND_MALFORMED', 'protected header has no kid')
  const extra = Object.keys(rest)
  if (extra.length > 0) {
    throw new Fault('COMMAND_MALFORMED', `protected header has ${extra.join(', ')}, not understood`)
  }
  return { kid }
}

async function signatureHolds(
  payload: string,
  signature: Envelope['signatures'][number],
  key: PublicKey,
): Promise<boolean> {
  try {
    const imported = await importJWK(key, 'EdDSA')
    // Built anew, so that an unprotected `header` beside the protected one is never looked at.
    const jws = { payload, protected: signature.protected, signature: signature.signature }
    await flattenedVerify(jws, imported, { algorithms: ['EdDSA'] })
    return true
  } catch {
    // Whatever jose found wrong, this signature does not count; the caller says how many do.
    return false
  }
}

function parsePayload(payload: string): unknown {
  return decodeJson(payload, 'payload')
}

function decodeJson(base64url: string, what: string): unknown {
  try {
    if (!BASE64URL.test(base64url)) throw new SyntaxError('not base64url')
    const bytes = Buffer.from(base64url, 'base64url')
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (error) {
    throw new Fault('COMMAND_MALFORMED', `${what} is not base64url JSON`, {}, { cause: error })
  }
}

function describe(
  errors: readonly { readonly instancePath: string; readonly message: string }[],
): string {
  return errors
    .slice(0, 8)
    .map(({ instancePath, message }) => `${instancePath || '/'} ${message}`)
    .join('; ')
}
