/**
 * Loaded before each test file by `npm test`, which runs three at a time: most of them wait for containers, timeouts and processes, not
 * for a core. Files that compare times run while no other does; the one that looks for what the run has left, after all others.
 *
 * A readers-writer lock of files: `shared-<pid>` of each file that runs, `alone` (a folder that holds the pid) of the one that waits for
 * the others to end and keeps new ones from beginning. Marks of processes that are gone count for nothing.
 */
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'

/** Looks for what all others have left: waits for them. */
const LAST = /^zz-leaks/
const ALONE: readonly RegExp[] = [
  // What they measure: what one function's load, or garbage, does to the times of others, and to the refusals.
  /^abuse-(fair|garbage|overload)/,
  // How long a stranger waits for `npm start`.
  /^quick-start/,
]
const LOOK_EVERY_MS = 20

const folder = process.env['SHOAL_TEST_TURNS']
// Processes and threads that a test file starts belong to its turn.
if (folder !== undefined && process.env['SHOAL_TEST_TURN'] === undefined) {
  process.env['SHOAL_TEST_TURN'] = String(process.pid)
  takeTurn(folder, basename(process.argv[1] ?? ''))
}

function takeTurn(turns: string, file: string): void {
  if (LAST.test(file)) {
    while (siblings().length > 0) pause()
    return
  }
  const alone = join(turns, 'alone')
  const mine = join(turns, `shared-${process.pid}`)
  if (ALONE.some((name) => name.test(file))) {
    while (!tryHold(alone)) pause()
    process.once('exit', () => rmSync(alone, { recursive: true, force: true }))
    while (readdirSync(turns).some((name) => isHeld(turns, name))) pause()
    return
  }
  for (;;) {
    while (isAloneHeld(alone)) pause()
    writeFileSync(mine, '')
    if (!existsSync(alone)) break
    rmSync(mine)
  }
  process.once('exit', () => rmSync(mine, { force: true }))
}

/** Other test files of this run: processes of the same parent. */
function siblings(): string[] {
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return false
    try {
      const [, parent] = /^.*\) \S+ (\d+) /s.exec(readFileSync(`/proc/${pid}/stat`, 'utf8')) ?? []
      return Number(parent) === process.ppid
    } catch {
      return false // It has ended.
    }
  })
}

function tryHold(alone: string): boolean {
  if (isAloneHeld(alone)) return false
  try {
    mkdirSync(alone)
    writeFileSync(join(alone, 'pid'), String(process.pid))
    return true
  } catch {
    return false // Another file was first.
  }
}

/** Removes the mark of a holder that was killed. */
function isAloneHeld(alone: string): boolean {
  if (!existsSync(alone)) return false
  let pid: number
  try {
    pid = Number(readFileSync(join(alone, 'pid'), 'utf8'))
  } catch {
    return existsSync(alone) // Between its folder and its pid.
  }
  if (pid === 0 || lives(pid)) return true
  rmSync(alone, { recursive: true, force: true })
  return false
}

function isHeld(turns: string, name: string): boolean {
  const pid = /^shared-(\d+)$/.exec(name)?.[1]
  if (pid === undefined) return false
  if (lives(Number(pid))) return true
  rmSync(join(turns, name), { force: true })
  return false
}

function lives(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

function pause(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOOK_EVERY_MS)
}
