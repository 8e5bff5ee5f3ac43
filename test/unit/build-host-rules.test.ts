import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import {
  checkPackageJson,
  checkPackageLock,
  plainRequirements,
} from '../../controller/build/host-rules.ts'

const refusal = (entry: string) => ({
  code: 'BUILD_FAILED',
  message: new RegExp(`asks for ".*${entry}.*": without Docker only packages of the index`),
})

describe('requirements.txt without Docker', () => {
  const taken: readonly (readonly [file: string, requirements: string])[] = [
    ['six', 'six\n'],
    [
      '# all of it\n\nsix==1.16.0  # pinned\r\nattrs >= 21, < 24\n',
      'six==1.16.0\nattrs >= 21, < 24\n',
    ],
    ['\uFEFFrequests[socks,security]~=2.31', 'requests[socks,security]~=2.31\n'],
    [
      'a; python_version < "3.9" and sys_platform == "linux"',
      'a; python_version < "3.9" and sys_platform == "linux"\n',
    ],
    [
      'a==1.0 \\\n  --hash=sha256:00ff \\\n  --hash=sha256:11',
      'a==1.0 --hash=sha256:00ff --hash=sha256:11\n',
    ],
    ['a===1.0.post1+local-2\nb!=1.*', 'a===1.0.post1+local-2\nb!=1.*\n'],
  ]
  for (const [file, requirements] of taken) {
    it(`takes ${JSON.stringify(file)}`, () => {
      assert.equal(plainRequirements('requirements.txt', file), requirements)
    })
  }

  const refused = [
    './pkg',
    '../pkg',
    '/etc/pkg',
    '.',
    'pkg/',
    'pkg.d/x',
    '-e .',
    '--editable ./pkg',
    '-r more.txt',
    '-c bounds.txt',
    '--no-binary :all:',
    '--index-url http://a/',
    '--pre',
    'http://a/b.tar.gz',
    'git+https://a/b',
    'file:///a/b.zip',
    'a @ file:///a',
    'a@http://a/b.whl',
    'a --no-binary=a',
    'a; x --global-option=y',
    'a[ -e b]',
    '${HOME}',
    'a==${X}',
    'six # a \\\n./pkg',
    '# a \\\n./pkg',
    'a \\\n-e b',
    'a\f./pkg',
    'a\u2028./pkg',
    'a==1+AAo-.+AC8-pkg ; +',
    'ä',
  ]
  for (const file of refused) {
    it(`refuses ${JSON.stringify(file)}`, () => {
      assert.throws(() => plainRequirements('requirements.txt', file), refusal(''))
    })
  }

  it('is done with a line of a million spaces at once', () => {
    const startedAt = performance.now()
    assert.throws(() => plainRequirements('r', `a${' '.repeat(1_000_000)}!`), refusal('a !'))
    assert.ok(performance.now() - startedAt < 10_000)
  })
})

describe('package.json without Docker', () => {
  const specs = [
    '1.2.3',
    '^1.2.3',
    '',
    '*',
    'latest',
    '>=1 <2 || 3.x',
    '1.0.0-rc.1+b',
    'npm:b@^1',
    'npm:@s/b@1',
    'npm:b',
  ]
  for (const spec of specs) {
    it(`takes ${JSON.stringify(spec)}`, () => {
      checkPackageJson('package.json', JSON.stringify({ dependencies: { a: spec } }))
    })
  }

  const refused = [
    'git+https://a/b.git',
    'git://a/b',
    'git+file:///a',
    'git@a:b.git',
    'ssh://a/b',
    'github:a/b',
    'a/b',
    'gist:1',
    'file:lib',
    'link:lib',
    './lib',
    '../lib',
    '..',
    ' ..',
    '/etc',
    '~/lib',
    'a.tgz',
    'b.tar.gz',
    'http://a/b.tgz',
    'workspace:*',
    'npm:b@git+https://a/b',
    'npm:../b',
  ]
  const groups = [
    'dependencies',
    'devDependencies',
    'optionalDependencies',
    'peerDependencies',
    'overrides',
  ]
  for (const spec of refused) {
    it(`refuses ${JSON.stringify(spec)}`, () => {
      for (const group of groups) {
        const text = JSON.stringify({ [group]: { fine: '1.0.0', a: spec } })
        assert.throws(() => checkPackageJson('package.json', text), refusal('a: '))
      }
    })
  }

  it('looks into overrides of overrides, and takes references', () => {
    const fine = { overrides: { a: { '.': '1', b: '$c' } }, dependencies: { c: '1' } }
    checkPackageJson('package.json', JSON.stringify(fine))
    const text = JSON.stringify({ overrides: { a: { '.': '1', b: { c: 'github:a/c' } } } })
    assert.throws(() => checkPackageJson('package.json', text), refusal('c: github:a/c'))
  })

  it('refuses workspaces, and what is not JSON', () => {
    const text = JSON.stringify({ workspaces: ['packages/*'] })
    assert.throws(() => checkPackageJson('package.json', text), refusal('workspaces'))
    assert.throws(() => checkPackageJson('package.json', '{'), { code: 'BUNDLE_INVALID' })
  })
})

describe('package-lock.json without Docker', () => {
  const own = { '': { dependencies: { a: '1' } } }
  const entry = {
    version: '1.0.0',
    resolved: 'https://registry/a-1.0.0.tgz',
    integrity: 'sha512-x/y==',
  }

  it('takes what a registry gave, in any version of the format', () => {
    const nested = {
      ...entry,
      requires: { b: '^1' },
      dependencies: { b: { version: '1.0.0', bundled: true } },
    }
    for (const lock of [
      {
        packages: {
          ...own,
          'node_modules/a': entry,
          'node_modules/a/node_modules/b': { inBundle: true },
        },
      },
      { packages: { ...own, 'node_modules/a': entry }, dependencies: { a: nested } },
      { dependencies: { a: nested } },
    ]) {
      checkPackageLock('package-lock.json', JSON.stringify(lock))
    }
  })

  for (const lock of [
    { packages: { ...own, 'node_modules/a': { ...entry, resolved: 'git+ssh://git@a/b.git#0a' } } },
    { packages: { ...own, 'node_modules/a': { ...entry, resolved: 'file:a.tgz' } } },
    { packages: { ...own, 'node_modules/a': { resolved: 'lib', link: true } } },
    { packages: { ...own, a: { version: '1.0.0' } } },
    { dependencies: { a: { version: 'git+ssh://git@a/b.git#0a' } } },
    { dependencies: { a: { version: 'file:lib' } } },
    {
      dependencies: { b: { ...entry, dependencies: { a: { ...entry, resolved: 'file:a.tgz' } } } },
    },
  ]) {
    it(`refuses ${JSON.stringify(lock).slice(0, 120)}`, () => {
      assert.throws(() => checkPackageLock('package-lock.json', JSON.stringify(lock)), refusal('a'))
    })
  }
})
