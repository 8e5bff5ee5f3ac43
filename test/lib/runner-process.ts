import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { RunnerLink } from '#agent/invoke/index.ts'
import { LinkScope, runnerInit } from './invoke-scope.ts'

const RUNNER = fileURLToPath(new URL('../../runtimes/nodejs/main.ts', import.meta.url))

/** A real Node runner as a process of its own, with a function loaded and its link ready. */
export class RunnerProcess implements AsyncDisposable {
  readonly scope: LinkScope
  readonly link: RunnerLink
  readonly child: ChildProcess

  private constructor(scope: LinkScope, link: RunnerLink, child: ChildProcess) {
    this.scope = scope
    this.link = link
    this.child = child
  }

  /** @param source - text of the function's `index.js` */
  static async start(source: string, runner = RUNNER): Promise<RunnerProcess> {
    const scope = await LinkScope.open()
    await writeFile(join(scope.folder, 'index.js'), source)
    const child = spawn(process.execPath, [runner], {
      env: { SHOAL_SOCKET: scope.socketPath, SHOAL_HANDLER: scope.handler },
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    try {
      const link = await scope.link()
      await link.init(runnerInit({ dir: scope.folder, concurrency: 1_024 }))
      return new RunnerProcess(scope, link, child)
    } catch (error) {
      child.kill('SIGKILL')
      await scope[Symbol.asyncDispose]()
      throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill('SIGKILL')
    await this.scope[Symbol.asyncDispose]()
  }
}
