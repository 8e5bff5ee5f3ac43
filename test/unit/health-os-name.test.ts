import assert from 'node:assert/strict'
import { it } from 'node:test'
import { parseOsRelease } from '#agent/health/index.ts'

const releases = [
  {
    name: 'Debian',
    text: 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\n',
    os: 'Debian GNU/Linux 12',
  },
  { name: 'no quotes, no version', text: 'NAME=Arch\nID=arch\n', os: 'Arch' },
  { name: 'escaped characters', text: 'NAME="A \\"B\\" \\$C"\nVERSION_ID=\'1\'', os: 'A "B" $C 1' },
  { name: 'something else', text: '#!/bin/sh\n', os: 'unknown' },
] as const
for (const { name, text, os } of releases) {
  it(`name of the distribution: ${name}`, () => {
    assert.equal(parseOsRelease(text), os)
  })
}
