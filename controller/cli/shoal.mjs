#!/usr/bin/env node
// Plain JavaScript that any Node since 18 understands: it finds a Node that runs TypeScript (the one of this checkout) and
// goes on there. Works as `npx shoal`, by a global link, and directly.
import { spawn } from 'node:child_process'
import { existsSync, realpathSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const NEEDED = [24, 12]
const here = dirname(realpathSync(fileURLToPath(import.meta.url)))
const main = join(here, 'main.ts')

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
if (major > NEEDED[0] || (major === NEEDED[0] && minor >= NEEDED[1])) {
  await import(main)
} else {
  const modules = join(here, '../../node_modules')
  const platform = `node-${process.platform}-${process.arch}`
  const candidates = [join(modules, platform, 'bin/node'), join(modules, '.bin/node')]
  const node = candidates.find((path) => existsSync(path))
  if (node === undefined) {
    process.stderr.write(
      `shoal needs Node ${NEEDED.join('.')} or newer (this is ${process.version}); run \`npm ci\` in ${join(here, '../..')}, ` +
        'which brings it along\n',
    )
    process.exit(1)
  }
  const child = spawn(node, [main, ...process.argv.slice(2)], { stdio: 'inherit' })
  // Ctrl+C reaches both; the child decides when it is done.
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(name, () => {
      if (name !== 'SIGINT') child.kill(name)
    })
  }
  child.on('error', (error) => {
    process.stderr.write(`shoal cannot start ${node}: ${error.message}\n`)
    process.exit(1)
  })
  child.on('exit', (code, signal) => {
    process.exit(signal === null ? (code ?? 1) : 1)
  })
}
