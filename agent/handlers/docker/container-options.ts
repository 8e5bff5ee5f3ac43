import type { ContainerCreateOptions } from 'dockerode'
import type { HandlerLimits, HandlerSpec, SpareSpec } from '../engine.ts'

/** Keys of the labels on every container; the value of `shoal` is the installation's id. */
export const LABELS = {
  installation: 'shoal',
  fn: 'shoal.fn',
  release: 'shoal.release',
  handler: 'shoal.handler',
  spec: 'shoal.spec',
  /** The runtime of a handler that was started as a spare, in place of function, release and spec. */
  spare: 'shoal.spare',
} as const

/** `nobody`-like numeric user: no image needs an entry in its passwd for it. */
export const HANDLER_USER = '65532:65532'
const FOLDER_INSIDE = '/shoal'
export const CODE_INSIDE = `${FOLDER_INSIDE}/fn`

const MIB = 1024 * 1024
const TMPFS_MIB_MAX = 64
/** Owned by the handler's user, because older runc gives it the mode that `/tmp` has in the image. */
const TMPFS_OPTIONS = 'rw,exec,nosuid,nodev,mode=1777,uid=65532,gid=65532,nr_inodes=65536'
const OPEN_FILES_MAX = 4096
/** Under memory pressure of the host, handlers go before the agent and the engine. */
const OOM_SCORE_ADJ = 500

export function containerName(handlerId: string): string {
  return `shoal-${handlerId}`
}

export interface ContainerInput {
  readonly spec: HandlerSpec | SpareSpec
  readonly installation: string
  /** Image id, `sha256:...`. */
  readonly image: string
  /** Docker runtime such as `runsc`; undefined: the engine's default. */
  readonly runtime: string | undefined
  /** The engine has an init to put before the handler. */
  readonly hasInit: boolean
}

/**
 * The sandbox: what the engine is asked for, for one handler.
 *
 * `/tmp` is the only place that can be written. It is small, counts as the handler's memory, and allows execution:
 * `binary` functions and native Python wheels unpack programs there, and forbidding it would not stop code that
 * already runs.
 */
export function containerOptions({
  spec,
  installation,
  image,
  runtime,
  hasInit,
}: ContainerInput): ContainerCreateOptions & { name: string } {
  const tmpfsMiB = Math.max(4, Math.min(TMPFS_MIB_MAX, Math.floor(spec.limits.memoryMiB / 2)))
  return {
    name: containerName(spec.id),
    Image: image,
    User: HANDLER_USER,
    Env: ['SHOAL_SOCKET=/shoal/s', `SHOAL_HANDLER=${spec.id}`, 'HOME=/tmp', 'TMPDIR=/tmp'],
    Labels: {
      [LABELS.installation]: installation,
      [LABELS.handler]: spec.id,
      ...purposeLabels(spec),
    },
    HostConfig: {
      NetworkMode: 'network' in spec && spec.network === 'outbound' ? 'bridge' : 'none',
      ReadonlyRootfs: true,
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges'],
      ...limitOptions(spec.limits),
      Tmpfs: { '/tmp': `${TMPFS_OPTIONS},size=${tmpfsMiB}m` },
      ShmSize: 4 * MIB,
      // `Mounts` and not `Binds`: a source that is missing is an error, not a new folder of root's.
      Mounts: [{ Type: 'bind', Source: spec.folder, Target: FOLDER_INSIDE, ReadOnly: true }],
      LogConfig: { Type: 'json-file', Config: { 'max-size': '1m', 'max-file': '1' } },
      RestartPolicy: { Name: 'no' },
      // Else what a function's children leave behind stays as zombies, which count against its pids. The binary runner reaps.
      Init: hasInit && spec.runtime !== 'binary',
      OomScoreAdj: OOM_SCORE_ADJ,
      Ulimits: [
        { Name: 'nofile', Soft: OPEN_FILES_MAX, Hard: OPEN_FILES_MAX },
        { Name: 'core', Soft: 0, Hard: 0 },
      ],
      ...(runtime === undefined ? {} : { Runtime: runtime }),
    },
  }
}

/** Of a new container, and for the engine's `update`. */
export function limitOptions({ memoryMiB, cpus, pids }: HandlerLimits) {
  const memoryBytes = memoryMiB * MIB
  return {
    PidsLimit: pids,
    Memory: memoryBytes,
    // Equal to Memory: no swap at all, so the limit means what it says.
    MemorySwap: memoryBytes,
    NanoCpus: Math.round(cpus * 1e9),
  }
}

function purposeLabels(spec: HandlerSpec | SpareSpec): Record<string, string> {
  if (!('fn' in spec)) return { [LABELS.spare]: spec.runtime }
  const { fn, release, specDigest } = spec
  return { [LABELS.fn]: fn, [LABELS.release]: release, [LABELS.spec]: specDigest }
}
