import { readFileSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Type, type Static } from 'typebox'
import { Check } from 'typebox/value'
import { writeDurable } from '../durable.ts'

const NAME = 'process.json'

/** What one agent must know about a process that another one started. */
const ProcessState = Type.Object({
  installation: Type.String(),
  id: Type.String(),
  /** Absent: started as a spare. */
  fn: Type.Optional(Type.String()),
  release: Type.Optional(Type.String()),
  specDigest: Type.Optional(Type.String()),
  /** Absent between "about to start" and "started": such a process is found by its environment. */
  process: Type.Optional(
    Type.Object({ pid: Type.Integer(), startTicks: Type.String(), bootId: Type.String() }),
  ),
})
export type ProcessState = Static<typeof ProcessState>

export async function writeState(folder: string, state: ProcessState): Promise<void> {
  await writeDurable(join(folder, NAME), JSON.stringify(state))
}

/** The state in one handler's folder; undefined when there is none that can be read. */
export function readState(folder: string): ProcessState | undefined {
  try {
    const value: unknown = JSON.parse(readFileSync(join(folder, NAME), 'utf8'))
    return Check(ProcessState, value) ? value : undefined
  } catch {
    return undefined
  }
}

export function removeState(folder: string): void {
  rmSync(join(folder, NAME), { force: true })
}

/** All states below `root`, by handler id, of one installation. */
export function readStates(root: string, installation: string): Map<string, ProcessState> {
  const states = new Map<string, ProcessState>()
  for (const name of names(root)) {
    const state = readState(join(root, name))
    if (state?.installation === installation && state.id === name) states.set(name, state)
  }
  return states
}

/** Exit code that the shell around the runner left; -1 when it could not. */
export function readExitCode(file: string): number {
  try {
    const code = Number.parseInt(readFileSync(file, 'utf8'), 10)
    return Number.isInteger(code) ? code : -1
  } catch {
    return -1
  }
}

function names(root: string): string[] {
  try {
    return readdirSync(root)
  } catch {
    return []
  }
}
