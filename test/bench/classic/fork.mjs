// The classic handler of a program: a process for each call, `sh fn.sh` with the body on stdin.
import { spawn } from 'node:child_process'
import { createServer } from 'node:http'

createServer((request, response) => {
  const child = spawn('/bin/sh', ['-c', 'exec cat'], { stdio: ['pipe', 'pipe', 'ignore'] })
  request.pipe(child.stdin)
  const chunks = []
  child.stdout.on('data', (chunk) => chunks.push(chunk))
  child.on('close', () => response.end(Buffer.concat(chunks)))
}).listen(8000, '0.0.0.0')
