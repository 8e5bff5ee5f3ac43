import type { ChildProcess } from 'node:child_process'

const alive = new Set<ChildProcess>()
let armed = false

/**
 * Makes sure that `child` does not outlive this test process, whatever ends it (except SIGKILL): a test that fails, a
 * timeout of the test runner, Ctrl+C.
 */
export function reapAtExit(child: ChildProcess): void {
  if (!armed) {
    armed = true
    process.on('exit', () => {
      for (const one of alive) one.kill('SIGKILL')
    })
    for (const [signal, code] of [
      ['SIGTERM', 143],
      ['SIGINT', 130],
    ] as const) {
      process.once(signal, () => process.exit(code))
    }
  }
  alive.add(child)
  child.once('exit', () => alive.delete(child))
}
