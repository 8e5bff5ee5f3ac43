import * as fs from 'node:fs/promises'
import { encodeAccount, encodeOperator, encodeUser, type User } from '@nats-io/jwt'
import {
  createAccount,
  createOperator,
  createUser,
  fromPublic,
  fromSeed,
  type KeyPair,
} from '@nats-io/nkeys'
import { Type, type Static } from 'typebox'
import { Compile } from 'typebox/compile'
import { DurableFile } from '#shared/durable-file.ts'
import { Fault } from '#shared/fault.ts'
import { subjects } from '#shared/subjects.ts'

const FILE = 'authority.json'
/** Longest function call allowed (`timeoutMs`), and a little: so long may a node take to answer a request. */
const REPLY_WITHIN_NS = 3_700_000 * 1_000_000
/** Subscriptions of one node: three of its own, one for replies, and room. */
const NODE_SUBSCRIPTIONS_MAX = 32

const Authority = Type.Object({
  format: Type.Literal(1),
  operator: Type.Object({ seed: Type.String(), jwt: Type.String() }),
  system: Type.Object({ seed: Type.String(), jwt: Type.String() }),
  account: Type.Object({ seed: Type.String(), jwt: Type.String() }),
  controller: Type.Object({ seed: Type.String(), jwt: Type.String() }),
})
type Authority = Static<typeof Authority>
const validator = Compile(Authority)

export interface NatsAuthorityOptions {
  readonly port: number
  /** Address the server listens on; default 127.0.0.1. */
  readonly host?: string
  readonly serverName?: string
}

/** What a client logs in with: the user's JWT and the seed of its nkey. */
export interface NatsUser {
  readonly jwt: string
  readonly seed: string
}

export interface NatsAuthority {
  /** Text of a nats-server configuration file: operator mode, accounts in memory, no JetStream. */
  readonly serverConfig: string
  readonly controllerCreds: NatsUser
  /**
   * A user JWT that may use the subjects of one node and no others.
   *
   * @param nkeyPublic - Public user nkey (`U...`), made on the node: its seed never leaves it
   * @throws Fault `REQUEST_INVALID` when that is no user nkey
   */
  issueNodeUser(nodeId: string, nkeyPublic: string): Promise<string>
}

/**
 * Loads the NATS operator, accounts and controller user of a folder; makes them when there are none.
 *
 * @param folder - Private to the controller; holds `authority.json`, mode 0600
 * @throws Fault `CONFIG_INVALID` for a damaged file (never replaced: every node's login hangs on it), `STORAGE`
 */
export async function ensureNatsAuthority(
  folder: string,
  options: NatsAuthorityOptions,
): Promise<NatsAuthority> {
  await fs.mkdir(folder, { recursive: true, mode: 0o700 })
  const file = new DurableFile({ folder, name: FILE, fs })
  const { value, problems } = await file.read(parseAuthority)
  if (value === undefined && problems.length > 0) {
    throw new Fault(
      'CONFIG_INVALID',
      `${problems.map(({ message }) => message).join('; ')}: restore it from a backup. Only if there is none, remove it and enrol every node again`,
      { folder },
    )
  }
  const authority = value ?? (await createAuthority())
  if (value === undefined) await file.write(JSON.stringify(authority))
  const account = pairOf(authority.account.seed)
  return {
    serverConfig: serverConfig(authority, options),
    controllerCreds: authority.controller,
    issueNodeUser: async (nodeId, nkeyPublic) =>
      encodeUser(nodeId, userKey(nkeyPublic), account, nodePermissions(nodeId)),
  }
}

async function createAuthority(): Promise<Authority> {
  const operator = createOperator()
  const system = createAccount()
  const account = createAccount()
  const controller = createUser()
  // Limits default to 0, which for a JWT means "none allowed": -1 is "no limit".
  const limits = {
    subs: -1,
    data: -1,
    payload: -1,
    conn: -1,
    leaf: 0,
    imports: -1,
    exports: -1,
    wildcards: true,
  }
  const accountJwt = (name: string, pair: KeyPair) =>
    encodeAccount(name, pair, { limits }, { signer: operator })
  return {
    format: 1,
    operator: {
      seed: seedOf(operator),
      jwt: await encodeOperator('shoal', operator, { system_account: system.getPublicKey() }),
    },
    system: { seed: seedOf(system), jwt: await accountJwt('shoal-system', system) },
    account: { seed: seedOf(account), jwt: await accountJwt('shoal', account) },
    controller: {
      seed: seedOf(controller),
      jwt: await encodeUser('controller', controller, account),
    },
  }
}

/**
 * A node says its own hello, health and logs, asks for artifacts, hears requests to itself and replies to its own inbox.
 * It answers a request once, on whatever reply subject that came with, and may publish there nothing unasked.
 */
function nodePermissions(node: string): Partial<User> {
  return {
    pub: {
      allow: [
        subjects.hello(node),
        subjects.health(node),
        subjects.logNode(node),
        subjects.artifact,
      ],
    },
    sub: { allow: [subjects.nodeAll(node), `${subjects.inbox(node)}.>`] },
    resp: { max: 1, ttl: REPLY_WITHIN_NS },
    subs: NODE_SUBSCRIPTIONS_MAX,
    allowed_connection_types: ['STANDARD'],
  }
}

function serverConfig(
  authority: Authority,
  { port, host = '127.0.0.1', serverName = 'shoal' }: NatsAuthorityOptions,
): string {
  const system = pairOf(authority.system.seed).getPublicKey()
  const account = pairOf(authority.account.seed).getPublicKey()
  return `# Written by Shoal: nodes and controller log in with JWTs of this operator.
server_name: "${serverName}"
listen: "${host.includes(':') ? `[${host}]` : host}:${port}"
max_payload: 1048576
max_control_line: 8192
write_deadline: "10s"
ping_interval: "20s"
ping_max: 2
operator: "${authority.operator.jwt}"
system_account: "${system}"
resolver: MEMORY
resolver_preload: {
  ${account}: "${authority.account.jwt}"
  ${system}: "${authority.system.jwt}"
}
`
}

function parseAuthority(bytes: Buffer): Authority {
  const value: unknown = JSON.parse(bytes.toString())
  if (!validator.Check(value)) throw new TypeError('not an authority file of this version')
  for (const part of [value.operator, value.system, value.account, value.controller]) {
    pairOf(part.seed)
  }
  return value
}

function userKey(nkeyPublic: string): KeyPair {
  try {
    if (!nkeyPublic.startsWith('U')) throw new TypeError('not a user key')
    return fromPublic(nkeyPublic)
  } catch (error) {
    throw new Fault(
      'REQUEST_INVALID',
      'the node key is no NATS user nkey (U...)',
      {},
      { cause: error },
    )
  }
}

function seedOf(pair: KeyPair): string {
  return new TextDecoder().decode(pair.getSeed())
}

function pairOf(seed: string): KeyPair {
  return fromSeed(new TextEncoder().encode(seed))
}
