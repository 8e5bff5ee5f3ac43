import { readFileSync } from 'node:fs'
import { join } from 'node:path'

const SETTINGS = join(import.meta.dirname, '../agent-memory.sh')

/** A shell script that becomes the agent, for whoever installs it: systemd, a container, a person. */
export function launcherText(): string {
  const settings = readFileSync(SETTINGS, 'utf8')
  return `#!/bin/sh
# Starts the agent that lies beside this file.
here=$(dirname -- "$(readlink -f -- "$0")")
set -- "$here/agent.mjs" "$@"
${settings.slice(settings.indexOf('\n') + 1)}`
}
