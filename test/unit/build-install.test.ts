import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { it } from 'node:test'
import { planInstall, shellScript, type InstallInput } from '../../controller/build/install.ts'

const NODE: InstallInput = {
  runtime: 'nodejs',
  files: new Set(['package.json', 'index.js']),
  manifest: { dependencies: true },
  requirements: false,
  arch: 'amd64',
  hostArch: 'amd64',
  scripts: true,
}
const PYTHON: InstallInput = {
  ...NODE,
  runtime: 'python3',
  files: new Set(['fn.py', 'requirements.txt']),
  manifest: undefined,
  requirements: true,
}

function failThenEcho(optional: boolean): Buffer {
  const script = shellScript([{ argv: ['false'], optional }, { argv: ['echo', 'on'] }])
  return execFileSync('/bin/sh', ['-c', script])
}

function words(input: InstallInput): string {
  return planInstall(input)?.steps[0]?.argv.join(' ') ?? ''
}

it('a lock file means npm ci, its absence npm install, and the output says which', () => {
  const locked = { ...NODE, files: new Set([...NODE.files, 'package-lock.json']) }
  assert.match(words(locked), /^npm ci --omit=dev /)
  assert.match(planInstall(locked)?.why ?? '', /npm ci \(package-lock\.json\)/)
  assert.match(words(NODE), /^npm install --omit=dev /)
  assert.match(planInstall(NODE)?.why ?? '', /no package-lock\.json: versions are chosen now/)
})

it('a lock file of another tool is not read, and that is said', () => {
  const yarn = { ...NODE, files: new Set([...NODE.files, 'yarn.lock']) }
  assert.match(words(yarn), /^npm install/)
  assert.match(planInstall(yarn)?.why ?? '', /other lock files are not read/)
})

it('nothing to install is no plan', () => {
  assert.equal(planInstall({ ...NODE, manifest: { dependencies: false } }), undefined)
  assert.equal(planInstall({ ...NODE, manifest: undefined }), undefined)
  assert.equal(planInstall({ ...PYTHON, requirements: false }), undefined)
  assert.equal(planInstall({ ...NODE, runtime: 'binary' }), undefined)
})

it("packages' own scripts run only where they are held, and only natively", () => {
  assert.doesNotMatch(words(NODE), /ignore-scripts/)
  assert.match(words({ ...NODE, scripts: false }), /--ignore-scripts/)
  assert.match(words({ ...PYTHON, scripts: false }), /--only-binary :all:/)
  const foreign = words({ ...NODE, arch: 'arm64' })
  assert.match(foreign, /--ignore-scripts --os=linux --libc=glibc --cpu=arm64/)
  const wheels = words({ ...PYTHON, arch: 'arm64' })
  assert.match(wheels, /--only-binary :all: --platform manylinux_2_28_aarch64/)
})

it('Python packages get byte code that does not look at times, since bundles have none', () => {
  const steps = planInstall(PYTHON)?.steps ?? []
  assert.equal(steps.length, 2)
  assert.match(steps[1]?.argv.join(' ') ?? '', /compileall .*unchecked-hash \.deps$/)
  assert.equal(steps[1]?.optional, true)
})

it('words reach the tool as they are, whatever is in them', () => {
  const script = shellScript([{ argv: ['printf', '%s|', "it's", '$HOME', 'a b', '`x`'] }])
  const printed = execFileSync('/bin/sh', ['-c', script], { encoding: 'utf8' })
  assert.equal(printed, "it's|$HOME|a b|`x`|")
})

it('an optional step that fails does not end the script, another one does', () => {
  assert.equal(failThenEcho(true).toString(), 'on\n')
  assert.throws(() => failThenEcho(false))
})
