import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { agentEnv, bundleOf, type AgentPorts } from './agent.ts'
import { eventually } from './eventually.ts'
import { testImagesFile } from './images.ts'
import { childScope, type ChildScope } from './process.ts'
import { assignmentOf } from './signer.ts'
import { tempFolder, type TempFolder } from './temp.ts'
import { TinyController } from './tiny-controller.ts'
import type { Assignment } from '#shared/schemas/command.ts'
import type { EngineKind, Runtime } from '#shared/schemas/names.ts'

const NODE = 'cost-1'
const DEPLOY_WITHIN_MS = 120_000

const ECHO = [
  { runtime: 'nodejs', file: 'index.js', source: 'module.exports = (q, s) => s.send(q.rawBody)' },
  {
    runtime: 'python3',
    file: 'fn.py',
    source: 'def handle(request, context):\n  return request.body\n',
  },
] as const satisfies readonly { runtime: Runtime; file: string; source: string }[]

/** One start of the agent, timed from before its process was made. */
export interface RunningAgent extends ChildScope {
  readonly ports: AgentPorts
  /** Until all ports were open. */
  readonly openMs: number
  /** Until a call of a function had been answered. */
  readonly firstAnswerMs: number
  /** Until each function had answered a call. */
  readonly allAnswerMs: number
}

export interface NodeUnderTestOptions {
  readonly engine: EngineKind
  readonly functions: number
}

/** A node with its controller and broker: echo functions in handlers that go on while the agent is stopped and started. */
export class NodeUnderTest implements AsyncDisposable {
  readonly functions: readonly string[]
  readonly #engine: EngineKind
  readonly #controller: TinyController
  readonly #folder: TempFolder

  private constructor(parts: {
    readonly engine: EngineKind
    readonly functions: readonly string[]
    readonly controller: TinyController
    readonly folder: TempFolder
  }) {
    this.functions = parts.functions
    this.#engine = parts.engine
    this.#controller = parts.controller
    this.#folder = parts.folder
  }

  /** Enrols a node, deploys and waits until everything runs; then the agent is stopped and its handlers go on. */
  static async create(
    { engine, functions }: NodeUnderTestOptions,
    command: readonly string[],
  ): Promise<NodeUnderTest> {
    const controller = await TinyController.start()
    const folder = await tempFolder()
    const names = Array.from({ length: functions }, (_, n) => `echo-${n}`)
    const node = new NodeUnderTest({ engine, functions: names, controller, folder })
    try {
      await using agent = await node.#spawn(command)
      await eventually(() => controller.hellos.length > 0)
      const wanted = await Promise.all(names.map((name, n) => node.#release(name, n)))
      await controller.send(NODE, await controller.signed(NODE, 1, wanted))
      const settled = () =>
        controller.heartbeats.at(-1)?.functions.every(({ state }) => state === 'ready') === true &&
        controller.heartbeats.at(-1)?.functions.length === functions
      await eventually(settled, { timeoutMs: DEPLOY_WITHIN_MS })
      await agent.kill('SIGTERM')
      return node
    } catch (error) {
      await node[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Starts the agent by `command` on what is on the disk, calls every function, and says how long that took. */
  async start(command: readonly string[]): Promise<RunningAgent> {
    const startedAtMs = performance.now()
    const child = await this.#spawn(command)
    const openMs = performance.now() - startedAtMs
    try {
      const { http, coap, grpc, admin }: AgentPorts = JSON.parse(child.readyLine)
      await callOk(http, this.functions[0] ?? '')
      const firstAnswerMs = performance.now() - startedAtMs
      await Promise.all(this.functions.map((name) => callOk(http, name)))
      const allAnswerMs = performance.now() - startedAtMs
      const dispose = () => child[Symbol.asyncDispose]()
      const ports = { http, coap, grpc, admin }
      const times = { openMs, firstAnswerMs, allAnswerMs }
      return { ...child, ports, ...times, [Symbol.asyncDispose]: dispose }
    } catch (error) {
      await child[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Where its agent keeps what it has. */
  get agentFolder(): string {
    return this.#folder.join('agent')
  }

  /** Resolves to the id on all that this node's agent makes. */
  async installation(): Promise<string> {
    return (await readFile(join(this.agentFolder, 'installation-id'), 'utf8')).trim()
  }

  /** A last agent removes the handlers, once it has found them all. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await using last = await this.#spawn(SOURCE, ['--remove-handlers'])
      const { admin }: AgentPorts = JSON.parse(last.readyLine)
      const settled = async () => {
        const response = await fetch(`http://127.0.0.1:${admin}/readyz`)
        const { failing }: { failing: unknown[] } = JSON.parse(await response.text())
        return response.ok && failing.length === 0
      }
      await eventually(settled, { timeoutMs: DEPLOY_WITHIN_MS })
      await last.kill('SIGTERM')
    } finally {
      await this.#controller[Symbol.asyncDispose]()
      await this.#folder[Symbol.asyncDispose]()
    }
  }

  async #spawn([program = '', ...args]: readonly string[], more: readonly string[] = []) {
    const env = await agentEnv({
      data: this.#folder.path,
      env: {
        SHOAL_JOIN_TOKEN: this.#controller.token(),
        SHOAL_NODE_NAME: NODE,
        SHOAL_ENGINE: this.#engine,
        SHOAL_HEARTBEAT_MS: undefined,
        // That of whoever runs the tests.
        NODE_COMPILE_CACHE: undefined,
        // The pinned Node, for the launcher.
        NODE: process.execPath,
        ...(this.#engine === 'docker' ? { SHOAL_IMAGES_FILE: testImagesFile() } : {}),
      },
    })
    // Not in the checkout: a bundle must find everything in itself.
    return childScope({ command: program, args: [...args, ...more], env, cwd: tmpdir() })
  }

  async #release(fn: string, n: number): Promise<Assignment> {
    const { runtime, file, source } =
      ECHO[this.#engine === 'docker' ? n % ECHO.length : 0] ?? ECHO[0]
    const artifact = this.#controller.addArtifact(await bundleOf({ [file]: source }))
    const release = `r1-${artifact.digest.slice(7, 15)}`
    return assignmentOf(fn, { artifact, release, runtime, settings: { timeoutMs: 10_000 } })
  }
}

/** The agent as `npm start` and tests run it. */
export const SOURCE: readonly string[] = [
  process.execPath,
  new URL('../../agent/main.ts', import.meta.url).pathname,
]

async function callOk(port: number, name: string): Promise<void> {
  const response = await fetch(`http://127.0.0.1:${port}/${name}`, {
    method: 'POST',
    body: 'hello',
  })
  const text = await response.text()
  if (text !== 'hello') throw new Error(`${name}: ${response.status} ${text}`)
}
