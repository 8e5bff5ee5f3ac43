import { AGENT_ENV, AGENT_FLAGS } from '../agent-memory.ts'

/** A shell script that becomes the agent, for whoever installs it: systemd, a container, a person. */
export function launcherText(): string {
  const settings = Object.entries(AGENT_ENV).map(
    ([name, value]) => `export ${name}="\${${name}-${value}}"\n`,
  )
  return `#!/bin/sh
# Starts the agent that lies beside this file. NODE names another Node than the first on PATH.
here=$(dirname -- "$(readlink -f -- "$0")")
${settings.join('')}exec "\${NODE:-node}" ${AGENT_FLAGS.join(' ')} "$here/agent.mjs" "$@"
`
}
