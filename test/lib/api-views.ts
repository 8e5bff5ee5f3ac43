import { Value } from 'typebox/value'
import type { FunctionView, NodeView, Rollout, RolloutNode } from '#shared/schemas/api.ts'
import { FunctionSettings } from '#shared/schemas/command.ts'

/** What the controller's API answers, made up: for tests of what shows or reads it. */

const RELEASE = 'r2-abababab'
const DIGEST = `sha256:${'ab'.repeat(32)}`

/** Settings with the defaults that the controller fills in. */
export function fullSettings(given: Partial<FunctionSettings>): FunctionSettings {
  return Value.Parse(FunctionSettings, Value.Default(FunctionSettings, { ...given }))
}

export function apiNode(id: string, changes: Partial<NodeView> = {}): NodeView {
  return {
    id,
    labels: { site: 'north' },
    arch: 'amd64',
    online: true,
    lastSeenMs: 1_700_000_000_000,
    generation: 3,
    acceptedGeneration: 3,
    missedBeats: 0,
    boots: 1,
    inventory: {
      agentVersion: '0.1.0',
      arch: 'amd64',
      cores: 2,
      memoryMiB: 1024,
      os: 'Debian 12',
      kernel: '6.1',
      engine: 'docker',
      engineVersion: '20.10',
      runtimes: ['nodejs', 'binary'],
      labels: {},
      ports: { http: 8000, coap: 5683, grpc: 0 },
    },
    ...changes,
  }
}

export function apiFunction(name: string, changes: Partial<FunctionView> = {}): FunctionView {
  return {
    name,
    latestRelease: RELEASE,
    settings: fullSettings({ replicas: 2, env: { SECRET: 'hunter2' } }),
    placements: [],
    releases: [
      {
        id: RELEASE,
        function: name,
        number: 2,
        runtime: 'nodejs',
        entry: 'index.js',
        digest: DIGEST,
        bytes: 1234,
        arch: 'any',
        sourceHash: DIGEST,
        createdAtMs: 1_700_000_000_000,
      },
    ],
    nodes: [],
    ...changes,
  }
}

export function apiRollout(changes: Partial<Rollout> = {}): Rollout {
  return {
    id: 'ro-1',
    function: 'thermo',
    release: RELEASE,
    selector: '*',
    settings: fullSettings({}),
    state: 'rolling',
    createdAtMs: 1_700_000_000_000,
    deadlineAtMs: 1_700_000_120_000,
    nodes: [],
    ...changes,
  }
}

/** Nodes n1, n2, ... of a rollout. */
export function rolloutNodes(...states: RolloutNode['state'][]): RolloutNode[] {
  return states.map((state, at) => ({ node: `n${at + 1}`, state, sinceMs: 1_700_000_000_000 }))
}
