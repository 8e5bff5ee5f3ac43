// `npm run bundle [-- --out <folder>] [--source-maps]`
import { parseArgs } from 'node:util'
import { stdoutOutput } from '../output.ts'
import { buildRelease } from './index.ts'

const { values } = parseArgs({
  options: { out: { type: 'string', default: 'dist' }, 'source-maps': { type: 'boolean' } },
})
const files = await buildRelease({
  folder: values.out,
  sourceMaps: values['source-maps'] ?? false,
})
for (const file of files) stdoutOutput.line(`${values.out}/${file}`)
