import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import * as fs from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { DurableFile, storageFault } from '#shared/durable-file.ts'
import { Fault } from '#shared/fault.ts'

const INSTALLATION = /^[0-9a-f]{12}$/

/**
 * The agent's folder, made when missing, held by this process alone: two agents on one folder would remove each other's handlers.
 *
 * The lock is an abstract Unix socket named after the folder: the kernel lets go of it when the process ends, however it ends.
 */
export class AgentFolder implements AsyncDisposable {
  readonly path: string
  readonly #lock: Server

  private constructor(path: string, lock: Server) {
    this.path = path
    this.#lock = lock
  }

  /** @throws Fault `STORAGE` (cannot be made), `CONFIG_INVALID` (another agent has it) */
  static async open(path: string): Promise<AgentFolder> {
    let real: string
    try {
      await fs.mkdir(path, { recursive: true, mode: 0o700 })
      real = await fs.realpath(path)
    } catch (error) {
      throw storageFault(error, `cannot use the agent's folder ${path} (SHOAL_AGENT_DATA)`)
    }
    const lock = createServer((socket) => socket.destroy())
    const name = createHash('sha256').update(real).digest('hex').slice(0, 32)
    try {
      lock.listen(`\0shoal-agent-${name}`)
      await once(lock, 'listening')
    } catch (error) {
      throw new Fault(
        'CONFIG_INVALID',
        `another agent runs on ${path} - end it, or give this one a folder of its own with SHOAL_AGENT_DATA`,
        { folder: path },
        { cause: error },
      )
    }
    return new AgentFolder(path, lock.unref())
  }

  /** The id on everything this installation makes in an engine; made once. @throws Fault `STORAGE` */
  async installationId(): Promise<string> {
    const file = new DurableFile({ folder: this.path, name: 'installation-id', fs })
    const { value, problems } = await file.read((bytes) => {
      const text = bytes.toString().trim()
      if (!INSTALLATION.test(text)) throw new TypeError('not an installation id')
      return text
    })
    if (value !== undefined) return value
    if (problems.length > 0) {
      // With a new id all that runs here would be nobody's, and would run on beside what is started anew.
      throw new Fault(
        'STORAGE',
        `cannot read the id of this installation (${problems.map(({ message }) => message).join('; ')}) - it is also the label ` +
          `shoal.installation of its containers: write it to ${file.path}, or remove these containers and the file`,
      )
    }
    const fresh = randomBytes(6).toString('hex')
    // Twice, so that there is a spare of a file that is never written again.
    await file.write(`${fresh}\n`)
    await file.write(`${fresh}\n`)
    return fresh
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#lock.listening) return
    const closed = once(this.#lock, 'close')
    this.#lock.close()
    await closed
  }
}
