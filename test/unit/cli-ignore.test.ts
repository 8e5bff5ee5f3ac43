import assert from 'node:assert/strict'
import { it } from 'node:test'
import { ignoreFilter } from '../../controller/cli/ignore.ts'

interface Row {
  readonly rules: string
  readonly ignored: readonly string[]
  readonly kept: readonly string[]
}

/** A path that ends with `/` is a folder. */
const ROWS: Row[] = [
  {
    rules: '',
    ignored: ['node_modules/', 'a/node_modules/', '.git/', 'a/__pycache__/', '.shoalignore'],
    kept: ['index.js', 'node_modules', '.env', 'a/.gitignore', 'lib/'],
  },
  { rules: '*.log', ignored: ['a.log', 'deep/er/b.log'], kept: ['a.log.txt', 'log'] },
  { rules: 'build', ignored: ['build', 'build/', 'a/build/'], kept: ['builds', 'a/rebuild'] },
  { rules: 'build/', ignored: ['build/', 'a/build/'], kept: ['build'] },
  { rules: '/build', ignored: ['build/', 'build'], kept: ['a/build'] },
  { rules: 'docs/*.md', ignored: ['docs/a.md'], kept: ['a/docs/a.md', 'docs/b/a.md', 'a.md'] },
  { rules: 'docs/**/*.md', ignored: ['docs/a.md', 'docs/b/c/a.md'], kept: ['a.md'] },
  { rules: '**/temp', ignored: ['temp', 'a/b/temp/'], kept: ['temps'] },
  { rules: 'data/**', ignored: ['data/a', 'data/b/c'], kept: ['data/', 'a/data'] },
  { rules: '# a comment\n\n  \n*.tmp  ', ignored: ['a.tmp'], kept: ['# a comment'] },
  { rules: '*.txt\n!keep.txt', ignored: ['a.txt'], kept: ['keep.txt', 'a/keep.txt'] },
  { rules: '!node_modules/', ignored: ['.git/'], kept: ['node_modules/'] },
  { rules: 'a?c', ignored: ['abc', 'x/axc'], kept: ['ac', 'a/c'] },
  { rules: '[a-c].js', ignored: ['a.js', 'b.js'], kept: ['d.js', '-.js'] },
  { rules: '[!a].js', ignored: ['b.js'], kept: ['a.js'] },
  { rules: String.raw`\#x`, ignored: ['#x'], kept: ['x'] },
  { rules: 'a.b+(c)$', ignored: ['a.b+(c)$'], kept: ['aXb+(c)$'] },
  { rules: '[z-a]', ignored: ['[z-a]'], kept: ['z'] },
  { rules: '[', ignored: ['['], kept: ['a'] },
  { rules: 'ü*', ignored: ['über'], kept: ['u'] },
]

for (const { rules, ignored, kept } of ROWS) {
  it(`.shoalignore ${JSON.stringify(rules)}`, () => {
    const filter = ignoreFilter(rules)
    const ask = (path: string) => filter(path.replace(/\/$/, ''), path.endsWith('/'))
    assert.deepEqual(
      ignored.filter((path) => !ask(path)),
      [],
      'should be left out',
    )
    assert.deepEqual(
      kept.filter((path) => ask(path)),
      [],
      'should be kept',
    )
  })
}
