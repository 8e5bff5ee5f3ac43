import assert from 'node:assert/strict'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { createUser } from '@nats-io/nkeys'
import {
  connect,
  jwtAuthenticator,
  PermissionViolationError,
  type NatsConnection,
} from '@nats-io/transport-node'
import { ensureNatsAuthority, type NatsAuthority } from '#controller/signing/index.ts'
import { Fault } from '#shared/fault.ts'
import { subjects } from '#shared/subjects.ts'
import { eventually } from '#test/eventually.ts'
import { natsScope } from '#test/nats.ts'
import { freePort } from '#test/ports.ts'
import { tempFolder } from '#test/temp.ts'

async function authorityScope() {
  const folder = await tempFolder()
  const first = await ensureNatsAuthority(folder.path, { port: 4222 })
  const port = await freePort()
  const { serverConfig } = await ensureNatsAuthority(folder.path, { port })
  const nats = await natsScope({ port, config: () => serverConfig })
  const stack = new AsyncDisposableStack()
  stack.use(folder)
  stack.use(nats)
  return {
    folder,
    nats,
    authority: first,
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

async function nodeConnection(
  authority: NatsAuthority,
  url: string,
  node: string,
  inboxOf = node,
): Promise<NatsConnection> {
  const key = createUser()
  const jwt = await authority.issueNodeUser(node, key.getPublicKey())
  return connect({
    servers: url,
    authenticator: jwtAuthenticator(jwt, key.getSeed()),
    inboxPrefix: subjects.inbox(inboxOf),
    reconnect: false,
  })
}

/** Permission violations that the server reported to a connection. */
function violations(connection: NatsConnection): string[] {
  const seen: string[] = []
  void (async () => {
    for await (const status of connection.status()) {
      if (status.type === 'error' && status.error instanceof PermissionViolationError) {
        seen.push(`${status.error.operation} ${status.error.subject}`)
      }
    }
  })()
  return seen
}

describe('a node on the real broker', () => {
  it('asks and answers on its own subjects, and on no others', async () => {
    await using scope = await authorityScope()
    const { authority, nats } = scope
    const { jwt, seed } = authority.controllerCreds
    await using controller = await connect({
      servers: nats.url,
      authenticator: jwtAuthenticator(jwt, new TextEncoder().encode(seed)),
    })
    await using node = await nodeConnection(authority, nats.url, 'edge-1')
    const heard: string[] = []
    controller.subscribe('shoal.v1.>', {
      callback: (_error, message) => {
        heard.push(message.subject)
        if (message.reply !== undefined && message.subject.startsWith('shoal.v1.hello')) {
          message.respond('welcome')
        }
      },
    })
    node.subscribe(subjects.nodeAll('edge-1'), {
      callback: (_error, message) => {
        message.respond('done')
        message.respond('twice')
      },
    })
    await Promise.all([controller.flush(), node.flush()])

    const hello = await node.request(subjects.hello('edge-1'), 'hi', { timeout: 10_000 })
    assert.equal(hello.string(), 'welcome')
    const answers: string[] = []
    const inbox = 'test.replies'
    controller.subscribe(inbox, {
      callback: (_error, message) => {
        answers.push(message.string())
      },
    })
    controller.publish(subjects.command('edge-1'), 'command', { reply: inbox })
    await eventually(() => answers.length > 0)
    node.publish(subjects.health('edge-1'), 'beat')
    node.publish(subjects.log('edge-1', 'site/thermo'), 'line')
    node.publish(subjects.artifact, 'range')
    await node.flush()
    await eventually(() => heard.includes(subjects.artifact))
    await controller.flush()

    // The reply permission is for one message per request: the second answer never arrives.
    assert.deepEqual(answers, ['done'])
    assert.deepEqual(
      heard.filter((subject) => !subject.startsWith('shoal.v1.node.')),
      [
        subjects.hello('edge-1'),
        subjects.health('edge-1'),
        subjects.log('edge-1', 'site/thermo'),
        subjects.artifact,
      ],
    )
  })

  const pub = 'publish'
  const sub = 'subscription'
  const forbidden = [
    { operation: sub, subject: subjects.nodeAll('edge-2') },
    { operation: sub, subject: subjects.command('edge-2') },
    { operation: sub, subject: 'shoal.v1.node.*.command' },
    { operation: sub, subject: 'shoal.>' },
    { operation: sub, subject: '>' },
    { operation: sub, subject: subjects.healthAll },
    { operation: sub, subject: subjects.artifact },
    { operation: sub, subject: `${subjects.inbox('edge-2')}.>` },
    { operation: sub, subject: '_INBOX.>' },
    { operation: sub, subject: '$SYS.>' },
    { operation: pub, subject: subjects.command('edge-2') },
    { operation: pub, subject: subjects.command('edge-1') },
    { operation: pub, subject: subjects.hello('edge-2') },
    { operation: pub, subject: subjects.health('edge-2') },
    { operation: pub, subject: subjects.log('edge-2', 'sieve') },
    { operation: pub, subject: `${subjects.inbox('edge-2')}.reply` },
    { operation: pub, subject: '_INBOX.reply' },
    { operation: pub, subject: '$SYS.REQ.SERVER.PING' },
  ]

  it('is refused everything that belongs to others', async () => {
    await using scope = await authorityScope()
    await using node = await nodeConnection(scope.authority, scope.nats.url, 'edge-1')
    const seen = violations(node)
    for (const { operation, subject } of forbidden) {
      if (operation === sub) node.subscribe(subject, { callback: () => {} })
      else node.publish(subject, 'forged')
    }
    await node.flush()
    const expected = forbidden.map(({ operation, subject }) => `${operation} ${subject}`)
    await eventually(() => seen.length >= expected.length)
    assert.deepEqual(seen.toSorted(), expected.toSorted())
  })

  it('gets no connection with the key of another, without a key, or after a forged JWT', async () => {
    await using scope = await authorityScope()
    const { authority, nats } = scope
    const key = createUser()
    const jwt = await authority.issueNodeUser('edge-1', key.getPublicKey())
    await using other = await tempFolder()
    const forger = await ensureNatsAuthority(other.path, { port: nats.port })
    const forged = await forger.issueNodeUser('edge-1', key.getPublicKey())
    const logins = [
      { authenticator: jwtAuthenticator(jwt, createUser().getSeed()) },
      { authenticator: jwtAuthenticator(jwt) },
      { authenticator: jwtAuthenticator(forged, key.getSeed()) },
      {},
    ]
    for (const login of logins) {
      await assert.rejects(connect({ servers: nats.url, ...login, reconnect: false }))
    }
  })
})

describe('ensureNatsAuthority', () => {
  it('is the same after a restart: kept logins go on working', async () => {
    await using folder = await tempFolder()
    const first = await ensureNatsAuthority(folder.path, { port: 4222 })
    const second = await ensureNatsAuthority(folder.path, { port: 4222 })
    assert.equal(second.serverConfig, first.serverConfig)
    assert.deepEqual(second.controllerCreds, first.controllerCreds)
    assert.equal((await stat(folder.join('authority.json'))).mode & 0o777, 0o600)
    assert.match(first.serverConfig, /^listen: "127\.0\.0\.1:4222"$/m)
    assert.doesNotMatch(first.serverConfig, /jetstream/i)
    assert.ok(!first.serverConfig.includes(first.controllerCreds.seed))
  })

  it('never replaces a damaged file', async () => {
    await using folder = await tempFolder()
    await ensureNatsAuthority(folder.path, { port: 4222 })
    const file = folder.join('authority.json')
    const half = (await readFile(file)).subarray(0, 200)
    await writeFile(file, half)
    await assert.rejects(ensureNatsAuthority(folder.path, { port: 4222 }), (error: unknown) =>
      Fault.is(error, 'CONFIG_INVALID'),
    )
    assert.deepEqual(await readFile(file), half)
  })

  it('refuses a node key that is none', async () => {
    await using folder = await tempFolder()
    const authority = await ensureNatsAuthority(folder.path, { port: 4222 })
    for (const key of ['', 'U', `U${'A'.repeat(55)}`, authority.controllerCreds.seed]) {
      await assert.rejects(authority.issueNodeUser('edge-1', key), (error: unknown) =>
        Fault.is(error, 'REQUEST_INVALID'),
      )
    }
  })
})
