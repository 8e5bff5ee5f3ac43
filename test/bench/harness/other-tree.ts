import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { OtherTree } from './model.ts'

const ROOT = join(import.meta.dirname, '../../..')

/** A checkout of another commit with packages of its own. Disposing removes it. @throws Error for a ref that is none */
export function checkOut(ref: string): OtherTree & Disposable {
  const folder = mkdtempSync(join(tmpdir(), 'shoal-bench-'))
  const path = join(folder, 'tree')
  git('worktree', 'add', '--detach', path, ref)
  return {
    ref,
    path,
    [Symbol.dispose]() {
      git('worktree', 'remove', '--force', path)
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

function git(...args: readonly string[]): void {
  execFileSync('git', ['-C', ROOT, ...args], { stdio: ['ignore', 'ignore', 'inherit'] })
}
