import { runCli } from './program.ts'

const interrupted = new AbortController()
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(name, () => interrupted.abort())
}
// Who reads our output may stop early (`| head`): that is no error.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
    interrupted.abort()
  })
}

const tty = process.stdout.isTTY && process.env['TERM'] !== 'dumb'
const code = await runCli(process.argv.slice(2), {
  out: {
    tty,
    columns: process.stdout.columns ?? 100,
    write: (content) => void process.stdout.write(content),
    note: (text) => void process.stderr.write(text),
  },
  stdin: process.stdin,
  env: process.env,
  signal: interrupted.signal,
  nowMs: () => Date.now(),
})
process.exitCode = code
