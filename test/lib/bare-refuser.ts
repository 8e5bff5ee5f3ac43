import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { reapAtExit } from './reaper.ts'

const CHILD = fileURLToPath(new URL('bare-refuser-child.ts', import.meta.url))

/**
 * A `node:http` server that answers `concurrency` calls at a time, each after `serviceMs`, and the others with 429 at once: what
 * its callers wait for a refusal is what this machine takes at the moment.
 */
export async function bareRefuser(options: {
  readonly concurrency: number
  readonly serviceMs: number
}): Promise<AsyncDisposable & { readonly url: string }> {
  const child = fork(CHILD, [JSON.stringify(options)], { stdio: 'inherit' })
  reapAtExit(child)
  const exited = once(child, 'exit')
  const [address] = await Promise.race([
    once(child, 'message'),
    exited.then(([code]) => {
      throw new Error(`the bare server ended with ${String(code)}`)
    }),
  ])
  return {
    url: `http://127.0.0.1:${address.port}/`,
    async [Symbol.asyncDispose]() {
      child.kill()
      await exited
    },
  }
}
