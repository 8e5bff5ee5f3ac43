/**
 * The runner for JavaScript and TypeScript: connects to the agent, loads the function, serves its calls.
 *
 * Run as `node main.ts`; depends on nothing but Node; used by the nodejs image and the process engine.
 */
import { installLightRequest } from './light-request.ts'
import { installLightResponse } from './light-response.ts'
import { captureOutput, Logs } from './logs.ts'
import { setContextLog } from './native.ts'
import { Runner } from './runner.ts'
import { printWarnings } from './warnings.ts'

const complain = process.stderr.write.bind(process.stderr)
const exit = process.exit.bind(process)
const logs = new Logs()
const runner = new Runner({
  socketPath: process.env['SHOAL_SOCKET'] ?? '/shoal/s',
  handler: process.env['SHOAL_HANDLER'] ?? '',
  version: '1.0.0',
  logs,
  complain: (text) => complain(`${text}\n`),
  exit,
})

captureOutput(logs)
printWarnings()
setContextLog((call, level, text) => logs.lines(call.logId, level, text))
installLightRequest()
installLightResponse()
process.on('uncaughtException', (error) => runner.crashed(error))
process.on('unhandledRejection', (error) => runner.rejected(error))
process.on('exit', () => runner.flush())
process.on('SIGTERM', () => runner.shutdown())
process.on('SIGINT', () => runner.shutdown())
// At the image's build: all modules are loaded now, and NODE_COMPILE_CACHE keeps them compiled.
if (process.argv.includes('--compile')) exit(0)
runner.connect()
