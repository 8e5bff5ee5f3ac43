import type { FileOps } from '#shared/durable-file.ts'

type Op =
  | { readonly kind: 'create'; readonly path: string; readonly inode: number }
  | { readonly kind: 'rename'; readonly from: string; readonly to: string }
  | { readonly kind: 'remove'; readonly path: string }
  | { readonly kind: 'write'; readonly inode: number; readonly data: Buffer }
  | { readonly kind: 'sync'; readonly inode: number }
  | { readonly kind: 'syncFolder' }

type NameOp = Extract<Op, { kind: 'create' | 'rename' | 'remove' }>

/** What a power cut leaves: content by path. */
export type DiskState = ReadonlyMap<string, Buffer>

/**
 * A disk that remembers every operation, so that a test can pull the plug after each of them. Without an fsync nothing is sure: data
 * of a file may be there, in part, as zeros or not at all; of the changes of names any first part may be there.
 */
export class SimulatedDisk implements FileOps {
  readonly #names = new Map<string, number>()
  readonly #data = new Map<number, Buffer>()
  readonly #initial: DiskState
  readonly #ops: Op[] = []
  #nextInode = 1
  /** When set, the operation with this number (from 0) and all after it fail with this code. */
  failFrom: { readonly op: number; readonly code: string } | undefined

  constructor(initial: DiskState = new Map()) {
    this.#initial = initial
    for (const [path, content] of initial) this.#names.set(path, this.#newInode(content))
  }

  /** Operations so far. */
  get operations(): number {
    return this.#ops.length
  }

  open(path: string, flags: string): ReturnType<FileOps['open']> {
    if (flags === 'r') {
      const sync = async (): Promise<void> => this.#record({ kind: 'syncFolder' })
      return Promise.resolve({ writeFile: () => Promise.reject(new Error('EBADF')), sync, close })
    }
    return this.#create(path)
  }

  async #create(path: string): ReturnType<FileOps['open']> {
    const inode = this.#newInode(Buffer.alloc(0))
    this.#record({ kind: 'create', path, inode })
    this.#names.set(path, inode)
    return {
      writeFile: async (data) => {
        const bytes = Buffer.from(data)
        this.#record({ kind: 'write', inode, data: bytes })
        this.#data.set(inode, bytes)
      },
      sync: async () => this.#record({ kind: 'sync', inode }),
      close,
    }
  }

  async readFile(path: string): Promise<Buffer> {
    const inode = this.#names.get(path)
    const content = inode === undefined ? undefined : this.#data.get(inode)
    if (content === undefined) throw systemError('ENOENT')
    return content
  }

  async rename(from: string, to: string): Promise<void> {
    const inode = this.#names.get(from)
    if (inode === undefined) throw systemError('ENOENT')
    this.#record({ kind: 'rename', from, to })
    this.#names.delete(from)
    this.#names.set(to, inode)
  }

  async rm(path: string): Promise<void> {
    this.#record({ kind: 'remove', path })
    this.#names.delete(path)
  }

  /** Everything that may be found on the disk when the power went after the first `count` operations, each once. */
  statesAfter(count: number): DiskState[] {
    const done = this.#ops.slice(0, count)
    const sure = done.findLastIndex(({ kind }) => kind === 'syncFolder') + 1
    const kept = done.slice(0, sure).filter(isName)
    const open = done.slice(sure).filter(isName)
    const states = new Map<string, DiskState>()
    for (let reached = 0; reached <= open.length; reached += 1) {
      const names = this.#namesAfter([...kept, ...open.slice(0, reached)])
      for (const damage of DAMAGES) {
        const state = new Map(
          Array.from(names, ([path, inode]) => [path, this.#contentOf(inode, done, damage)]),
        )
        const text = Array.from(state, ([path, content]) => `${path}=${content.toString('hex')}`)
        states.set(text.toSorted().join(), state)
      }
    }
    return [...states.values()]
  }

  #namesAfter(ops: readonly NameOp[]): Map<string, number> {
    const names = new Map<string, number>()
    // The first inodes are those of the initial content, in its order.
    for (const [index, path] of [...this.#initial.keys()].entries()) names.set(path, index + 1)
    for (const op of ops) {
      if (op.kind === 'create') names.set(op.path, op.inode)
      else if (op.kind === 'remove') names.delete(op.path)
      else {
        const inode = names.get(op.from)
        names.delete(op.from)
        if (inode !== undefined) names.set(op.to, inode)
      }
    }
    return names
  }

  #contentOf(inode: number, done: readonly Op[], damage: (written: Buffer) => Buffer): Buffer {
    const initial = [...this.#initial.values()][inode - 1] ?? Buffer.alloc(0)
    const written = done.findLastIndex((op) => op.kind === 'write' && op.inode === inode)
    const op = done[written]
    if (op?.kind !== 'write') return initial
    const synced = done.findIndex(
      (later, at) => at > written && later.kind === 'sync' && later.inode === inode,
    )
    return synced === -1 ? damage(op.data) : op.data
  }

  #newInode(content: Buffer): number {
    const inode = this.#nextInode
    this.#nextInode += 1
    this.#data.set(inode, content)
    return inode
  }

  #record(op: Op): void {
    const fail = this.failFrom
    if (fail !== undefined && this.#ops.length >= fail.op) throw systemError(fail.code)
    this.#ops.push(op)
  }
}

function isName(op: Op): op is NameOp {
  return op.kind === 'create' || op.kind === 'rename' || op.kind === 'remove'
}

/** What may be found of bytes that were written and never synced. */
const DAMAGES: readonly ((written: Buffer) => Buffer)[] = [
  (written) => written,
  () => Buffer.alloc(0),
  (written) => written.subarray(0, Math.floor(written.length / 2)),
  (written) => Buffer.alloc(written.length),
]

const close = (): Promise<void> => Promise.resolve()

function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: simulated`), { code })
}
