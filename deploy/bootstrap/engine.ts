import type { DeployConfig } from '../config.ts'
import type { Apt } from './apt.ts'
import { findProgram } from '../command.ts'
import { engineState, startDockerd, type OwnDockerd } from './dockerd.ts'
import type { Step } from './steps.ts'

/** The Docker Engine: installed and started when it is not there. `onOwn` gets a dockerd that we had to start ourselves. */
export function dockerStep(
  config: DeployConfig,
  apt: Apt,
  onOwn: (dockerd: OwnDockerd) => void,
): Step {
  const { dockerSocket, root, data } = config
  return {
    name: 'Docker Engine',
    present: async (signal) => {
      const engine = await engineState(dockerSocket, signal)
      return engine.state === 'running' ? engine.version : undefined
    },
    install: async (signal) => {
      const engine = await engineState(dockerSocket, signal)
      if (engine.state === 'denied') throw new Error(`you may not use ${dockerSocket}`)
      const done: string[] = []
      if (findProgram('dockerd') === undefined) {
        if (!apt.installs) throw new Error('not installed, and installing needs root and apt-get')
        await apt.install(['docker.io'], signal)
        done.push('docker.io installed')
      }
      // The package may have started it.
      if ((await engineState(dockerSocket, signal)).state !== 'running') {
        if (!root) throw new Error('not running, and starting it needs root')
        const own = await startDockerd({ socketPath: dockerSocket, data }, signal)
        if (own !== undefined) onOwn(own)
        done.push('dockerd started')
      }
      const now = await engineState(dockerSocket, signal)
      return [...done, now.state === 'running' ? now.version : 'and gone again'].join(', ')
    },
    get hint() {
      if (findProgram('dockerd') === undefined) return 'By hand: sudo apt-get install docker.io'
      if (root) return `By hand: dockerd, and see what it says (log: ${data}/log/dockerd.log)`
      return 'By hand: sudo systemctl start docker; sudo usermod -aG docker "$USER", and log in again'
    },
  }
}
