import assert from 'node:assert/strict'
import { it } from 'node:test'
import { matches, parseSelector, type Selectable } from '#controller/fleet/index.ts'
import { Fault } from '#shared/fault.ts'

const NODES: readonly Selectable[] = [
  { id: 'edge-1', arch: 'amd64', labels: { site: 'north', rack: '1' } },
  { id: 'edge-2', arch: 'arm64', labels: { site: 'north', rack: '' } },
  // Labels that say otherwise do not change what a node is.
  { id: 'edge-3', arch: 'arm64', labels: { id: 'edge-1', arch: 'amd64' } },
]

const chosen: readonly { text: string; nodes: readonly string[] }[] = [
  { text: '*', nodes: ['edge-1', 'edge-2', 'edge-3'] },
  { text: ' * ', nodes: ['edge-1', 'edge-2', 'edge-3'] },
  { text: 'edge-2', nodes: ['edge-2'] },
  { text: 'id=edge-2', nodes: ['edge-2'] },
  { text: 'id=edge-1', nodes: ['edge-1'] },
  { text: 'arch=arm64', nodes: ['edge-2', 'edge-3'] },
  { text: 'arch=amd64', nodes: ['edge-1'] },
  { text: 'site=north', nodes: ['edge-1', 'edge-2'] },
  { text: 'site!=north', nodes: ['edge-3'] },
  { text: 'rack=', nodes: ['edge-2'] },
  { text: 'rack!=1', nodes: ['edge-2', 'edge-3'] },
  { text: ' site = north , arch = arm64 ', nodes: ['edge-2'] },
  { text: 'site=north,site=south', nodes: [] },
  { text: 'edge-1,edge-2', nodes: [] },
  { text: 'constructor=x', nodes: [] },
]
for (const { text, nodes } of chosen) {
  it(`"${text}" selects ${nodes.join(', ') || 'no node'}`, () => {
    const selector = parseSelector(text)
    assert.deepEqual(
      NODES.filter((node) => matches(selector, node)).map(({ id }) => id),
      nodes,
    )
  })
}

const refused: readonly { text: string; position: number; says: RegExp }[] = [
  { text: '', position: 1, says: /wants a term/ },
  { text: 'site=north,', position: 12, says: /wants a term/ },
  { text: 'site=north,,arch=arm64', position: 12, says: /wants a term/ },
  { text: 'site=north, *', position: 13, says: /stands alone/ },
  { text: '=north', position: 1, says: /no label name/ },
  { text: 'a=1, b c=2', position: 6, says: /`b c` is no label name/ },
  { text: 'site=no rth', position: 6, says: /`no rth` is no label value/ },
  { text: 'a=1,site= n/a', position: 11, says: /`n\/a` is no label value/ },
  { text: 'Edge_1', position: 1, says: /neither `key=value` nor a node id/ },
  { text: 'site==north', position: 6, says: /`=north` is no label value/ },
  { text: Array.from({ length: 65 }, () => 'a=1').join(','), position: 1, says: /65 terms/ },
]
for (const { text, position, says } of refused) {
  it(`"${text.slice(0, 30)}" is refused, pointing at character ${position}`, () => {
    assert.throws(
      () => parseSelector(text),
      (error: unknown) =>
        Fault.is(error, 'REQUEST_INVALID') &&
        error.details['position'] === position &&
        error.message.includes(`character ${position}:`) &&
        says.test(error.message),
    )
  })
}
