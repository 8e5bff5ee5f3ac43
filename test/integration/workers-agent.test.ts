import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { after, before, describe, it } from 'node:test'
import { agentProcess, agentRun, bundleOf, type AgentScope } from '#test/agent.ts'
import { coapClient, grpcCall } from '#test/clients.ts'
import { eventually } from '#test/eventually.ts'
import { httpLoad } from '#test/http-load.ts'
import { freePort } from '#test/ports.ts'
import { hasEnded } from '#test/process-facts.ts'
import { assignmentOf } from '#test/signer.ts'
import { tempFolder, type TempFolder } from '#test/temp.ts'
import { TinyController } from '#test/tiny-controller.ts'

const NODE = 'edge-1'
const SLOW = `export default async (request) => {
  const ms = Number(new URL(request.url).searchParams.get('ms') ?? 0)
  await new Promise((resolve) => setTimeout(resolve, ms))
  return new Response(await request.text())
}`

let controller: TinyController
let folder: TempFolder
/** Of the tests up to its stop. */
let agent: AgentScope

const start = (env: Record<string, string> = {}, args: readonly string[] = []) =>
  agentProcess({
    data: folder.path,
    env: {
      SHOAL_JOIN_TOKEN: controller.token(),
      SHOAL_NODE_NAME: NODE,
      SHOAL_WORKERS: '2',
      ...env,
    },
    args,
  })

/** The agent's children that have its ports. */
async function workersOf({ pid }: AgentScope): Promise<readonly number[]> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')
  const all = await Promise.all(
    children
      .trim()
      .split(' ')
      .map(async (child) => {
        const command = await readFile(`/proc/${child}/cmdline`, 'utf8').catch(() => '')
        return { pid: Number(child), isWorker: command.includes('fronts/worker.ts') }
      }),
  )
  return all.filter(({ isWorker }) => isWorker).map((child) => child.pid)
}

async function gone(pids: readonly number[]): Promise<void> {
  await eventually(() => pids.every(hasEnded))
}

async function metrics(): Promise<string> {
  return (await fetch(`${agent.admin}/metrics`)).text()
}

async function post(path: string, body: string): Promise<string> {
  const response = await fetch(`${agent.url}/${path}`, { method: 'POST', body })
  return `${response.status} ${await response.text()}`
}

before(async () => {
  controller = await TinyController.start()
  folder = await tempFolder()
  agent = await start()
  await eventually(() => controller.hellos.length > 0)
  const artifact = controller.addArtifact(await bundleOf({ 'index.mjs': SLOW }))
  const release = `r1-${artifact.digest.slice(7, 15)}`
  const wanted = assignmentOf('slow', { artifact, release, settings: { timeoutMs: 15_000 } })
  await controller.send(NODE, await controller.signed(NODE, 1, [wanted]))
  // A function that is deployed while the workers run is theirs, too.
  await eventually(async () => (await post('slow', 'hello')) === '200 hello', { timeoutMs: 60_000 })
})

after(async () => {
  await agent[Symbol.asyncDispose]()
  await using last = await start({ SHOAL_WORKERS: '1' }, ['--remove-handlers'])
  await last.kill('SIGTERM')
  await controller[Symbol.asyncDispose]()
  await folder[Symbol.asyncDispose]()
})

describe('an agent with SHOAL_WORKERS=2', () => {
  it('serves by every protocol, and counts all calls in one place', async () => {
    const { coap, grpc } = agent.ports
    assert.equal((await workersOf(agent)).length, 2)
    const counted = async () => {
      const [, calls] = /^shoal_invoke_calls_total\{fn="slow",outcome="ok"\} (\d+)$/m.exec(
        await metrics(),
      ) ?? ['', 'none']
      return Number(calls)
    }
    const earlier = await counted()
    assert.equal(await post('slow', 'by http'), '200 by http')
    const uri = `coap://127.0.0.1:${coap}/slow`
    assert.match((await coapClient(uri, { payload: 'by coap' })).stdout, /by coap/)
    const request = { function: 'slow', payload: Buffer.from('by grpc') }
    const answer = await grpcCall(`127.0.0.1:${grpc}`, 'shoal.v1.Functions/Invoke', request)
    assert.equal(answer.payload.toString(), 'by grpc')
    assert.equal(await counted(), earlier + 3)
    assert.match(await metrics(), /^shoal_process_workers_count 2$/m)
  })

  it('goes on while a worker dies under load, and has two again', async () => {
    const [killed = 0, ...others] = await workersOf(agent)
    const load = httpLoad(`${agent.url}/slow`, 8)
    await eventually(() => load.report.calls > 200)
    process.kill(killed, 'SIGKILL')
    await eventually(async () => {
      const now = await workersOf(agent)
      return now.length === 2 && !now.includes(killed) && now.includes(others[0] ?? 0)
    })
    const earlier = load.report.calls
    await eventually(() => load.report.calls > earlier + 200)
    const { failed, failures } = await load.stop()
    // Those that were with it, and those that the kernel had given it.
    assert.ok(failed <= 16, `${failed} failed: ${failures.join(', ')}`)
    assert.ok((await fetch(`${agent.admin}/readyz`)).ok)
    assert.match(agent.output(), /worker ended; another one is started/)
  })

  it('does not share its ports with another agent, which names them', async () => {
    const { admin: _, ...ports } = agent.ports
    const tries = Object.entries(ports).map(async ([name, port]) => {
      await using other = await tempFolder()
      const setting = `SHOAL_${name.toUpperCase()}_PORT`
      const env = { SHOAL_JOIN_TOKEN: controller.token(), SHOAL_WORKERS: '2' }
      const { code, output } = await agentRun({
        data: other.path,
        env: { ...env, SHOAL_NODE_NAME: `other-${name}`, [setting]: `${port}` },
      })
      assert.equal(code, 1)
      assert.match(output, new RegExp(`PORT_TAKEN.*port ${port} .* set ${setting}`, 's'))
    })
    await Promise.all(tries)
  })

  it('lets calls end when it is told to stop', async () => {
    const workers = await workersOf(agent)
    const numbers = Array.from({ length: 6 }, (_, n) => n)
    const answers = Promise.all(numbers.map((n) => post('slow?ms=3000', `call ${n}`)))
    const inWork = /^shoal_invoke_in_flight_calls\{fn="slow"\} 6$/m
    await eventually(async () => inWork.test(await metrics()))
    const [exit, all] = await Promise.all([agent.kill('SIGTERM'), answers])
    assert.equal(exit.code, 0, agent.output())
    assert.deepEqual(
      all,
      numbers.map((n) => `200 call ${n}`),
    )
    await gone(workers)
  })

  it('leaves no worker behind when it is killed, and its ports can be had at once', async () => {
    // Ports that nobody else is given meanwhile.
    const ports = {
      SHOAL_HTTP_PORT: `${await freePort()}`,
      SHOAL_COAP_PORT: `${await freePort('udp')}`,
      SHOAL_GRPC_PORT: `${await freePort()}`,
    }
    await using killed = await start(ports)
    const workers = await workersOf(killed)
    assert.equal(workers.length, 2)
    await killed.kill('SIGKILL')
    await using next = await start(ports)
    assert.equal(`${next.ports.http}`, ports.SHOAL_HTTP_PORT)
    await gone(workers)
    await next.kill('SIGTERM')
  })
})
