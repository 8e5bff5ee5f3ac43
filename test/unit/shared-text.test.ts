import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import * as fc from 'fast-check'
import { cutText } from '#shared/text.ts'

describe('cutText', () => {
  const ROWS = [
    { name: 'short enough: as it is', text: 'abcde', charsMax: 5, cut: 'abcde' },
    { name: 'too long: cut, and it shows', text: 'abcdef', charsMax: 5, cut: 'ab...' },
    { name: 'a pair at the cut goes as a whole', text: 'a🐟bcdef', charsMax: 5, cut: 'a...' },
    { name: 'a pair before the cut stays', text: '🐟bcdefg', charsMax: 5, cut: '🐟...' },
    { name: 'half a pair is replaced', text: 'a\ud800b', charsMax: 5, cut: 'a\ufffdb' },
    { name: 'also in what is cut', text: '\udc00bcdef', charsMax: 5, cut: '\ufffdb...' },
    { name: 'nothing but the mark', text: 'abcdef', charsMax: 3, cut: '...' },
  ]
  for (const { name, text, charsMax, cut } of ROWS) {
    it(name, () => assert.equal(cutText(text, charsMax), cut))
  }

  it('is well-formed and never too long, whatever comes', () => {
    const unit = fc.oneof(
      fc.integer({ min: 0, max: 0xffff }),
      fc.integer({ min: 0xd7f0, max: 0xe00f }),
    )
    fc.assert(
      fc.property(fc.array(unit), fc.integer({ min: 3, max: 20 }), (units, charsMax) => {
        const cut = cutText(String.fromCharCode(...units), charsMax)
        assert.ok(cut.isWellFormed() && cut.length <= charsMax)
      }),
    )
  })
})
