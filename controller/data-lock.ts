import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, realpath } from 'node:fs/promises'
import { createServer } from 'node:net'
import { Fault } from '#shared/fault.ts'

/**
 * Makes the controller's folder and holds it: a second controller on it would remove the first one's uploads and builds, and
 * write over its rollouts.
 *
 * The lock is an abstract Unix socket named after the folder: the kernel lets go of it when the process ends, however it ends.
 *
 * @throws Fault `CONFIG_INVALID` when another controller has it
 */
export async function lockControllerData(folder: string): Promise<Disposable> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const name = createHash('sha256')
    .update(await realpath(folder))
    .digest('hex')
    .slice(0, 32)
  const lock = createServer((socket) => socket.destroy())
  try {
    lock.listen(`\0shoal-controller-${name}`)
    await once(lock, 'listening')
  } catch (error) {
    throw new Fault(
      'CONFIG_INVALID',
      `another controller runs on ${folder}: end it, or give this one a folder of its own with SHOAL_CONTROLLER_DATA`,
      { folder },
      { cause: error },
    )
  }
  lock.unref()
  return { [Symbol.dispose]: () => void lock.close() }
}
