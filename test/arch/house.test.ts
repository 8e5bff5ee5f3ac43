import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { it } from 'node:test'
import { renderReadme } from '#deploy/docs.ts'
import { FAULTS } from '#shared/fault.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const LINES_MAX = 400
const EXCLUDED = ['node_modules/**', 'dist/**', '**/gen/**', 'package-lock.json']
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8')

it('no source file is longer than 400 lines', () => {
  const files = globSync('**/*.{ts,mjs,js,py,go,sh}', { cwd: ROOT, exclude: EXCLUDED })
  assert.ok(files.length > 60, `${files.length} files seen`)
  const long = files
    .map((file) => ({ file, lines: read(file).split('\n').length - 1 }))
    .filter(({ lines }) => lines > LINES_MAX)
  assert.deepEqual(long, [])
})

it('every index.ts says what its folder is, what it depends on and who uses it', () => {
  const files = globSync('{agent,controller,runtimes,deploy}/**/index.ts', {
    cwd: ROOT,
    exclude: ['**/node_modules/**', 'deploy/samples/**'],
  })
  assert.ok(files.length > 10, `${files.length} index files seen`)
  const silent = files.filter((file) => {
    const text = read(file)
    const header = text.slice(0, text.indexOf('*/'))
    return !text.startsWith('/**') || !/Depends on\b/.test(header) || !/Used by\b/.test(header)
  })
  assert.deepEqual(silent, [])
})

it('nothing is left for later: no marker words', () => {
  const files = globSync('**/*.{ts,mjs,js,py,go,sh,proto,md,Dockerfile}', {
    cwd: ROOT,
    exclude: EXCLUDED,
  })
  assert.ok(files.length > 60, `${files.length} files seen`)
  // Written backwards, or this file would find itself.
  const words = ['ODOT', 'EMXIF', 'KCAH'].map((word) => word.split('').toReversed().join(''))
  const marker = new RegExp(`\\b(${words.join('|')})\\b`)
  const found = files.flatMap((file) =>
    read(file)
      .split('\n')
      .flatMap((line, index) => (marker.test(line) ? [`${file}:${index + 1}`] : [])),
  )
  assert.deepEqual(found, [])
})

it('no test is switched off', () => {
  const files = globSync('test/**/*.test.ts', { cwd: ROOT })
  assert.ok(files.length > 5, `${files.length} test files seen`)
  const off = files.filter((file) => /\b(it|test|describe)\.(skip|only|todo)\b/.test(read(file)))
  assert.deepEqual(off, [])
})

it('what runs for long limits times by timeLimit, which leaves nothing', () => {
  const files = globSync('{agent,controller,shared}/**/*.ts', {
    cwd: ROOT,
    exclude: [...EXCLUDED, 'controller/cli/**'],
  })
  assert.ok(files.length > 60, `${files.length} files seen`)
  assert.deepEqual(
    files.filter((file) => read(file).includes('AbortSignal.timeout(')),
    [],
  )
})

it("README's tables are those of the schemas: npm run docs makes them again", () => {
  const readme = read('README.md')
  assert.equal(renderReadme(readme), readme)
  for (const code of Object.keys(FAULTS)) assert.ok(readme.includes(`| \`${code}\``), code)
})
