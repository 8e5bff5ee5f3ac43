import { Fault } from '#shared/fault.ts'

/** What matters of a `package.json`. */
export interface Manifest {
  readonly main?: string
  /** True when there is anything that npm would install for production. */
  readonly dependencies: boolean
}

/** @throws Fault `BUNDLE_INVALID` */
export function parseManifest(text: string): Manifest {
  let value: unknown
  try {
    value = JSON.parse(text.replace(/^\uFEFF/, ''))
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new Fault('BUNDLE_INVALID', `package.json is not JSON: ${why}`, {}, { cause })
  }
  if (!isRecord(value)) throw new Fault('BUNDLE_INVALID', 'package.json holds no object')
  const main = value['main']
  const some = (key: string) => {
    const group = value[key]
    return isRecord(group) && Object.keys(group).length > 0
  }
  const dependencies = ['dependencies', 'optionalDependencies', 'peerDependencies'].some(some)
  return {
    ...(typeof main === 'string' && main !== '' ? { main } : {}),
    dependencies: dependencies || Array.isArray(value['workspaces']) || some('workspaces'),
  }
}

/** True when a requirements.txt asks for anything at all. */
export function hasRequirements(text: string): boolean {
  return text.split('\n').some((line) => {
    const trimmed = line.trim()
    return trimmed !== '' && !trimmed.startsWith('#')
  })
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
