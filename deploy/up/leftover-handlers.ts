import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import Docker from 'dockerode'
import type { EngineKind } from '#shared/schemas/names.ts'
import type { DeployConfig } from '../config.ts'
import type { Output } from '../output.ts'

const CALL_TIMEOUT_MS = 3_000

/** Removes containers and networks of this installation that its agent, killed or stuck, has left. Finds none after a clean stop. */
export async function removeHandlers(
  config: DeployConfig,
  engine: EngineKind,
  out: Output,
): Promise<void> {
  if (engine !== 'docker') return
  const id = await installationId(config.data)
  if (id === undefined) return
  const docker = new Docker({ socketPath: config.dockerSocket, timeout: CALL_TIMEOUT_MS })
  const filters = { label: [`shoal=${id}`] }
  const containers = await docker.listContainers({ all: true, filters })
  await Promise.all(
    containers.map(({ Id }) => docker.getContainer(Id).remove({ force: true, v: true })),
  )
  const networks = await docker.listNetworks({ filters })
  for (const { Id } of networks) await docker.getNetwork(Id).remove()
  if (containers.length + networks.length > 0) {
    out.line(`removed ${containers.length} handlers and ${networks.length} networks that were left`)
  }
}

async function installationId(data: string): Promise<string | undefined> {
  try {
    const text = (await readFile(join(data, 'agent', 'installation-id'), 'utf8')).trim()
    return text === '' ? undefined : text
  } catch {
    return undefined
  }
}
