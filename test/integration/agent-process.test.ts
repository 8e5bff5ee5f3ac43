import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { promisify } from 'node:util'
import { HandlerFolders } from '#agent/handlers/index.ts'
import type { Assignment } from '#shared/schemas/command.ts'
import { stateDigest } from '#shared/state-digest.ts'
import { subjects } from '#shared/subjects.ts'
import {
  AGENT_MAIN,
  agentEnv,
  agentProcess,
  agentRun,
  bundleOf,
  type AgentScope,
} from '#test/agent.ts'
import { eventually } from '#test/eventually.ts'
import { childScope } from '#test/process.ts'
import { assignmentOf } from '#test/signer.ts'
import { tempFolder } from '#test/temp.ts'
import { TinyController } from '#test/tiny-controller.ts'

const ROOT = join(import.meta.dirname, '../..')
const NODE = 'edge-1'
const UPPER = 'export default async (request) => new Response((await request.text()).toUpperCase())'
const LOUD = `export default async () => { console.log('heard'); return new Response('ok') }`

async function release(
  controller: TinyController,
  fn: string,
  source: string,
  number = 1,
): Promise<Assignment> {
  const artifact = controller.addArtifact(await bundleOf({ 'index.mjs': source }))
  const id = `r${number}-${artifact.digest.slice(7, 15)}`
  return assignmentOf(fn, { artifact, release: id, settings: { timeoutMs: 5_000 } })
}

async function call(agent: AgentScope, fn: string, body: string): Promise<string> {
  const response = await fetch(`${agent.url}/${fn}`, { method: 'POST', body })
  const text = await response.text()
  assert.equal(response.status, 200, text)
  return text
}

/** Agent with its controller; at the end its handlers are removed by a last run of the agent itself. */
async function world() {
  await using stack = new AsyncDisposableStack()
  const controller = stack.use(await TinyController.start())
  const folder = stack.use(await tempFolder())
  const env = { SHOAL_JOIN_TOKEN: controller.token(), SHOAL_NODE_NAME: NODE }
  const start = (more: Record<string, string> = {}, args: readonly string[] = []) =>
    agentProcess({ data: folder.path, env: { ...env, ...more }, args })
  stack.defer(async () => {
    await using last = await start({}, ['--remove-handlers'])
    const { code } = await last.kill('SIGTERM')
    assert.equal(code, 0, last.output())
  })
  const owned = stack.move()
  return {
    controller,
    folder,
    start,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

describe('the agent as a process', () => {
  it('enrols, runs what a signed command says, and tells how it is', async () => {
    await using scope = await world()
    const { controller } = scope
    await using agent = await scope.start()
    assert.equal(agent.node, NODE)
    assert.equal(agent.output().split('NO isolation').length - 1, 1, 'one warning line')
    await eventually(() => controller.hellos.length > 0)
    assert.equal(controller.hellos[0]?.inventory.engine, 'process')
    assert.equal(controller.hellos[0]?.inventory.ports.http, agent.ports.http)

    const functions = [await release(controller, 'site/upper', UPPER)]
    const reply = await controller.send(NODE, await controller.signed(NODE, 1, functions))
    assert.deepEqual(reply, { accepted: true, generation: 1 })
    const ready = await eventually(async () => (await fetch(`${agent.admin}/readyz`)).ok)
    assert.ok(ready)
    assert.equal(await call(agent, 'site/upper', 'hello'), 'HELLO')

    const beat = await eventually(() =>
      controller.heartbeats.findLast(({ functions: list }) => list[0]?.state === 'ready'),
    )
    assert.equal(beat.node, NODE)
    assert.equal(beat.generation, 1)
    assert.equal(beat.stateDigest, stateDigest(functions))
    assert.ok(beat.host.memoryMiB > 0 && beat.host.diskFreeMiB > 0)
    const counted = await eventually(() =>
      controller.heartbeats.findLast(({ functions: list }) => list[0]?.calls.ok === 1),
    )
    assert.ok(counted.seq > beat.seq - 1)
    const seqs = controller.heartbeats.map(({ seq }) => seq)
    assert.deepEqual(
      seqs,
      seqs.map((_, index) => index + 1),
    )

    const metrics = await (await fetch(`${agent.admin}/metrics`)).text()
    assert.match(metrics, /shoal_invoke_calls_total\{fn="site\/upper",outcome="ok"\} 1/)
    assert.match(metrics, /shoal_nats_connected_bool 1/)
    assert.match(metrics, /shoal_command_generation_number 1/)
    const health = await fetch(`${agent.admin}/healthz`)
    assert.equal(health.status, 200)
  })

  it('after SIGTERM handlers go on, and the next agent serves from its disk with no network at all', async () => {
    await using scope = await world()
    const { controller } = scope
    const functions = [await release(controller, 'upper', UPPER)]
    const folders = scope.folder.join('agent', 'h')
    const handlers = async (): Promise<string[]> =>
      (await HandlerFolders.open(folders)).read().records.map(({ id }) => id)
    let before: string[] = []
    {
      await using agent = await scope.start()
      await eventually(() => controller.hellos.length > 0)
      await controller.send(NODE, await controller.signed(NODE, 3, functions))
      await eventually(() => call(agent, 'upper', 'a'))
      before = await handlers()
      assert.equal(before.length, 1)
      await eventually(async () => (await readdir(folders)).length === 2)
      const startedMs = performance.now()
      const { code } = await agent.kill('SIGTERM')
      assert.equal(code, 0, agent.output())
      assert.ok(performance.now() - startedMs < 10_000)
      assert.deepEqual(await readdir(folders), before, 'a spare does not outlive its agent')
    }
    await controller.nats.kill()
    {
      await using agent = await scope.start({ SHOAL_JOIN_TOKEN: '' })
      assert.equal(await call(agent, 'upper', 'offline'), 'OFFLINE')
      assert.deepEqual(await handlers(), before)
      await agent.kill('SIGKILL')
    }
    await using agent = await scope.start()
    assert.equal(await call(agent, 'upper', 'after a kill'), 'AFTER A KILL')
    assert.deepEqual(await handlers(), before)
    await controller.nats.start()
    await eventually(
      () => controller.hellos.at(-1)?.generation === 3 && controller.hellos.length > 1,
    )
  })

  it('is ready with one function that fails, and names it with its reason', async () => {
    await using scope = await world()
    const { controller } = scope
    await using agent = await scope.start()
    await eventually(() => controller.hellos.length > 0)
    const broken = await release(controller, 'broken', 'throw new Error("no database here")')
    const fine = await release(controller, 'loud', LOUD)
    await controller.send(NODE, await controller.signed(NODE, 1, [broken, fine]))
    const failing = await eventually(async () => {
      const response = await fetch(`${agent.admin}/readyz`)
      const body: { failing: { fn: string; code?: string }[] } = JSON.parse(await response.text())
      const [only] = body.failing
      // One function that fails takes no caller away from the others.
      return response.ok && only?.code !== undefined ? body.failing : undefined
    })
    assert.deepEqual(
      failing.map(({ fn, code }) => [fn, code]),
      [['broken', 'FUNCTION_LOAD']],
    )
    const beat = await eventually(() =>
      controller.heartbeats.findLast(({ functions }) => functions[0]?.state === 'failed'),
    )
    assert.match(beat.functions[0]?.reason?.message ?? '', /no database here/)

    // What a function prints is in its log, over NATS and after a restart.
    assert.equal(await call(agent, 'loud', ''), 'ok')
    const lines = await eventually(async () => {
      const request = JSON.stringify({ fn: 'loud', tail: 10, followMs: 0 })
      const reply = await controller.connection.request(subjects.logs(NODE), request)
      const { lines: found } = reply.json<{ lines: { text: string; release: string }[] }>()
      return found.length > 0 ? found : undefined
    })
    assert.deepEqual(
      lines.map(({ text, release: of }) => [text, of]),
      [['heard', fine.release]],
    )
  })

  it('refuses a command that is not for it and goes on; the refusal is in its heartbeat', async () => {
    await using scope = await world()
    const { controller } = scope
    await using agent = await scope.start()
    assert.equal(agent.node, NODE)
    await eventually(() => controller.hellos.length > 0)
    const reply = await controller.send(NODE, await controller.signed('edge-2', 1))
    assert.equal(reply.accepted ? '' : reply.code, 'COMMAND_AUDIENCE')
    const beat = await eventually(() => controller.heartbeats.findLast(({ refusal }) => refusal))
    assert.equal(beat.refusal?.code, 'COMMAND_AUDIENCE')
    await controller.send(NODE, await controller.signed(NODE, 1))
    await eventually(() => {
      const last = controller.heartbeats.at(-1)
      return last?.generation === 1 && last.refusal === undefined
    })
  })

  it('sends a last heartbeat when told to stop, and removes handlers when told so', async () => {
    await using scope = await world()
    const { controller } = scope
    await using agent = await scope.start({ SHOAL_HEARTBEAT_MS: '60000' }, ['--remove-handlers'])
    await eventually(() => controller.hellos.length > 0)
    const functions = [await release(controller, 'upper', UPPER)]
    await controller.send(NODE, await controller.signed(NODE, 1, functions))
    await eventually(() => call(agent, 'upper', 'x'))
    // The state reached the controller long before the next beat was due.
    await eventually(() => controller.heartbeats.at(-1)?.functions[0]?.state === 'ready')
    const before = controller.heartbeats.length
    const { code } = await agent.kill('SIGTERM')
    assert.equal(code, 0)
    await eventually(() => controller.heartbeats.length > before)
    assert.deepEqual(await readdir(scope.folder.join('agent', 'h')), [])
  })
})

describe('an agent that cannot start', () => {
  it('names the port that is taken and the setting that moves it', async () => {
    await using controller = await TinyController.start()
    const taken = createServer().listen(0, '127.0.0.1')
    await once(taken, 'listening')
    const address = taken.address()
    assert.ok(typeof address === 'object' && address !== null)
    for (const setting of ['SHOAL_HTTP_PORT', 'SHOAL_GRPC_PORT', 'SHOAL_ADMIN_PORT']) {
      await using folder = await tempFolder()
      const { code, output } = await agentRun({
        data: folder.path,
        env: { SHOAL_JOIN_TOKEN: controller.token(), [setting]: String(address.port) },
      })
      assert.equal(code, 1)
      assert.match(output, /PORT_TAKEN/)
      const line = `^shoal-agent: port ${address.port} .* is taken .* - set ${setting} to a free port`
      assert.match(output, new RegExp(line, 'm'))
      assert.doesNotMatch(output, /\bat .*\.ts:\d/, 'a stack says nothing to its reader')
    }
    assert.deepEqual(controller.joins, [], 'no token was used up')
    taken.close()
    await once(taken, 'close')
  })

  const rows = [
    {
      name: 'no token and no identity',
      env: {},
      says: /^shoal-agent: .* is not enrolled - run `shoal node token`/m,
    },
    {
      name: 'a data folder that cannot be made',
      env: { SHOAL_AGENT_DATA: '/dev/null/agent' },
      says: /^shoal-agent: cannot use the agent's folder .*: ENOTDIR.* - SHOAL_DATA names/m,
    },
    {
      name: 'a broken token',
      env: { SHOAL_JOIN_TOKEN: 'abc' },
      says: /^shoal-agent: .* is not a join token - copy/m,
    },
    {
      name: 'a misspelt setting',
      env: { SHOAL_HTP_PORT: '1' },
      says: /^shoal-agent: SHOAL_HTP_PORT.*SHOAL_HTTP_PORT meant\? - /m,
    },
  ]
  for (const { name, env, says } of rows) {
    it(`${name}: one line that says what to do, exit code 1`, async () => {
      await using folder = await tempFolder()
      const { code, output } = await agentRun({ data: folder.path, env })
      assert.equal(code, 1)
      assert.match(output, says)
      assert.doesNotMatch(output, /\bat .*\.ts:\d/)
    })
  }

  it('says on stderr when there is no Docker, and serves as soon as there is', async () => {
    await using controller = await TinyController.start()
    await using folder = await tempFolder()
    const env = {
      SHOAL_JOIN_TOKEN: controller.token(),
      SHOAL_ENGINE: 'docker',
      SHOAL_DOCKER_SOCKET: folder.join('no.sock'),
    }
    await using agent = await agentProcess({ data: folder.path, env })
    const line = await agent.line((text) => text.startsWith('shoal-agent: '))
    assert.match(line, /Docker does not answer at .*no\.sock.* - functions start as soon/)
  })

  it('refuses a controller whose root is not the one in the token', async () => {
    await using controller = await TinyController.start()
    await using folder = await tempFolder()
    const token = controller.token('another-root')
    const { code, output } = await agentRun({ data: folder.path, env: { SHOAL_JOIN_TOKEN: token } })
    assert.equal(code, 1)
    assert.match(output, /TRUST_INVALID/)
    const identity = await readFile(folder.join('agent', 'identity.json'), 'utf8')
    assert.deepEqual(Object.keys(JSON.parse(identity)), ['seed'])
  })

  it('refuses a folder that another agent has', async () => {
    await using controller = await TinyController.start()
    await using folder = await tempFolder()
    const env = { SHOAL_JOIN_TOKEN: controller.token() }
    await using first = await agentProcess({ data: folder.path, env })
    const { code, output } = await agentRun({ data: folder.path, env })
    assert.equal(code, 1)
    assert.match(output, /another agent runs on/)
    assert.ok((await fetch(`${first.admin}/healthz`)).ok)
  })

  it('stops at once when told so while it waits for a controller', async () => {
    await using folder = await tempFolder()
    const token = { url: 'http://127.0.0.1:9', secret: 'x'.repeat(20), root: 'r' }
    const text = Buffer.from(JSON.stringify(token)).toString('base64url')
    await using child = await childScope({
      script: AGENT_MAIN,
      env: await agentEnv({ data: folder.path, env: { SHOAL_JOIN_TOKEN: text } }),
      ready: (line) => line.includes('waiting for the controller'),
    })
    const { code } = await child.kill('SIGTERM')
    assert.equal(code, 0, child.output())
  })
})

it('--print-config shows the effective settings without secrets', async () => {
  await using folder = await tempFolder()
  const { code, output } = await agentRun({
    data: folder.path,
    env: { SHOAL_JOIN_TOKEN: 'c2VjcmV0', HTTP_PORT: '8123', SHOAL_HTTP_PORT: undefined },
    args: ['--print-config'],
  })
  assert.equal(code, 0)
  const config: Record<string, unknown> = JSON.parse(output)
  assert.equal(config['httpPort'], 8123)
  assert.equal(config['engine'], 'process')
  assert.equal(config['joinToken'], '(set, not shown)')
  assert.doesNotMatch(output, /c2VjcmV0/)
})

it('npm run agent uses the Node of this checkout, whatever Node runs npm', async () => {
  const { scripts }: { scripts: { agent: string } } = JSON.parse(
    await readFile(join(ROOT, 'package.json'), 'utf8'),
  )
  // As npm starts a script: its own Node is NODE, the first one on PATH is that of node_modules.
  const { stdout } = await promisify(execFile)('sh', ['-c', `${scripts.agent} --print-config`], {
    cwd: ROOT,
    env: { NODE: '/bin/false', PATH: `${ROOT}/node_modules/.bin:${process.env['PATH']}` },
  })
  assert.equal(JSON.parse(stdout).httpPort, 8000)
})
