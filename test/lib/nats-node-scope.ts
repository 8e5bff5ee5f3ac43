import * as fs from 'node:fs/promises'
import {
  CommandKeeper,
  ensureIdentity,
  LogBook,
  NatsLink,
  NodeService,
  TrustKeeper,
  type NodeServiceOptions,
} from '#agent/command/index.ts'
import type { Invocation, Result } from '#agent/invoke/index.ts'
import { systemClock } from '#shared/clock.ts'
import { Fault } from '#shared/fault.ts'
import type { NodeCommand } from '#shared/schemas/command.ts'
import type { Inventory } from '#shared/schemas/health.ts'
import { tempFolder } from './temp.ts'
import type { TinyController } from './tiny-controller.ts'

export const NODE = 'edge-1'
const log = { debug() {}, info() {}, warn() {}, error() {} }

export const inventory: Inventory = {
  agentVersion: '0.0.0',
  arch: 'amd64',
  cores: 1,
  memoryMiB: 1,
  os: 'test',
  kernel: 'test',
  engine: 'process',
  engineVersion: '1',
  runtimes: [],
  labels: {},
  ports: { http: 0, coap: 0, grpc: 0 },
}

interface NodeScopeOptions {
  readonly folder?: string
  /** Called before a file gets its name; the name waits for it. */
  readonly onRename?: () => Promise<void>
  readonly invoke?: (invocation: Invocation, signal?: AbortSignal) => Promise<Result>
}

/** The agent's NATS side with everything real but the functions. */
export async function nodeScope(controller: TinyController, options: NodeScopeOptions = {}) {
  await using stack = new AsyncDisposableStack()
  const folder = options.folder ?? stack.use(await tempFolder()).path
  const rename: typeof fs.rename = async (from, to) => {
    await options.onRename?.()
    await fs.rename(from, to)
  }
  const common = { folder, fs: { ...fs, rename }, clock: systemClock, log }
  const identity = await ensureIdentity(
    { ...common, joinToken: controller.token(), name: NODE, arch: 'amd64', labels: {} },
    AbortSignal.timeout(30_000),
  )
  const { rootKeyId, trust: enrolled } = identity
  const trust = await TrustKeeper.open({ ...common, rootKeyId, enrolled })
  const keeper = await CommandKeeper.open({ ...common, node: identity.node, trust })
  const logs = stack.use(await LogBook.open({ folder: `${folder}/logs`, log }))
  const commands: NodeCommand[] = []
  const invoke: NodeServiceOptions['invoker']['invoke'] =
    options.invoke ?? (() => Promise.reject(new Fault('FUNCTION_UNKNOWN', 'none here')))
  const service = new NodeService({
    node: identity.node,
    keeper,
    trust,
    invoker: { invoke },
    logs,
    inventory: async () => inventory,
    onCommand: (command) => void commands.push(command),
    onRemoved: () => undefined,
    log,
  })
  const link = new NatsLink({
    identity,
    onConnection: (connection) => service.connected(connection),
    onUp: () => service.up(),
    log,
  })
  service.attach(link)
  link.start()
  stack.use(link)
  stack.use(service)
  const owned = stack.move()
  return {
    keeper,
    trust,
    logs,
    link,
    service,
    commands,
    folder,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}
