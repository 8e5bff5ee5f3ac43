import { exportJWK, generateKeyPair, type CryptoKey } from 'jose'
import { Value } from 'typebox/value'
import { keyId, signEnvelope, type PublicKey } from '#shared/envelope.ts'
import {
  FunctionSettings,
  type Assignment,
  type Envelope,
  type NodeCommand,
  type TrustDocument,
} from '#shared/schemas/command.ts'

export interface TestKey {
  readonly kid: string
  readonly key: CryptoKey
  readonly publicKey: PublicKey
}

export async function testKey(): Promise<TestKey> {
  const { privateKey, publicKey } = await generateKeyPair('EdDSA', { crv: 'Ed25519' })
  const { x = '' } = await exportJWK(publicKey)
  const jwk: PublicKey = { kty: 'OKP', crv: 'Ed25519', x }
  return { kid: await keyId(jwk), key: privateKey, publicKey: jwk }
}

/** A controller's keys in memory: its trust document and signed commands for tests without a disk. */
export class TestSigner {
  readonly root: TestKey
  readonly release: TestKey
  readonly command: TestKey
  readonly trust: TrustDocument

  private constructor(root: TestKey, release: TestKey, command: TestKey) {
    this.root = root
    this.release = release
    this.command = command
    const role = ({ kid }: TestKey) => ({ keyIds: [kid], threshold: 1 })
    this.trust = {
      version: 1,
      expiresAtMs: 4_000_000_000_000,
      keys: Object.fromEntries([root, release, command].map((key) => [key.kid, key.publicKey])),
      roles: { root: role(root), release: role(release), command: role(command) },
    }
  }

  static async create(): Promise<TestSigner> {
    const [root, release, command] = await Promise.all([testKey(), testKey(), testKey()])
    return new TestSigner(root, release, command)
  }

  signTrust(document: TrustDocument = this.trust, ...more: TestKey[]): Promise<Envelope> {
    return signEnvelope(document, [this.root, ...more], 'root')
  }

  signCommand(command: unknown, key: TestKey = this.command): Promise<Envelope> {
    return signEnvelope(command, [key], 'command')
  }
}

/** A valid command; whatever is given replaces its part. */
export function commandFor(
  node: string,
  generation: number,
  changes: Partial<NodeCommand> = {},
): NodeCommand {
  return {
    node,
    generation,
    issuedAtMs: 0,
    expiresAtMs: 4_000_000_000_000,
    functions: [],
    ...changes,
  }
}

/** A valid assignment; whatever is given replaces its part. */
export function assignmentOf(
  fn: string,
  changes: Partial<Omit<Assignment, 'settings'>> & {
    readonly settings?: Partial<FunctionSettings>
  } = {},
): Assignment {
  return {
    fn,
    release: 'r1-00000000',
    runtime: 'nodejs',
    artifact: { digest: `sha256:${'0'.repeat(64)}`, bytes: 1 },
    ...changes,
    settings: { ...Value.Create(FunctionSettings), ...changes.settings },
  }
}
