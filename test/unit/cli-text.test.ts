import assert from 'node:assert/strict'
import { it } from 'node:test'
import { stripVTControlCharacters } from 'node:util'
import type { Rollout, RolloutNode, RolloutState } from '#shared/schemas/api.ts'
import { callExamples } from '../../controller/cli/call-examples.ts'
import { checkText } from '../../controller/cli/commands/doctor.ts'
import { functionTable } from '../../controller/cli/commands/fn-ls.ts'
import { functionText } from '../../controller/cli/commands/fn-show.ts'
import { nodeTable } from '../../controller/cli/commands/node-ls.ts'
import { nodeText } from '../../controller/cli/commands/node-show.ts'
import { exitCodeOf } from '../../controller/cli/exit-codes.ts'
import { ProgressBlock, type Output } from '../../controller/cli/output.ts'
import { rolloutLines, rolloutSummary } from '../../controller/cli/rollout-view.ts'
import { bytesText, durationText, table } from '../../controller/cli/table.ts'
import { apiFunction, apiNode, apiRollout, fullSettings } from '#test/api-views.ts'
import { heartbeatOf, reportOf } from '#test/heartbeat.ts'

interface TextOutput extends Output {
  text: string
}

function output(tty = false, columns = 80): TextOutput {
  return {
    tty,
    columns,
    text: '',
    write(content) {
      this.text += String(content)
    },
    note() {},
  }
}

const NOW_MS = 1_700_000_000_000
const RELEASE = 'r2-abababab'

it('a table is as wide as its cells, without spaces at the ends of lines', () => {
  assert.equal(
    table(
      ['A', 'LONG'],
      [
        ['wide cell', 'x'],
        ['y', ''],
      ],
      'none',
    ),
    'A          LONG\nwide cell  x\ny\n',
  )
  assert.equal(table(['A'], [], 'no rows'), 'no rows\n')
})

it('colours do not count as width', () => {
  const red = '\u001b[31mab\u001b[39m'
  assert.equal(
    stripVTControlCharacters(
      table(
        ['X', 'Y'],
        [
          [red, '1'],
          ['abc', '2'],
        ],
        '',
      ),
    ),
    'X    Y\nab   1\nabc  2\n',
  )
})

it('sizes and durations are short', () => {
  const sizes = [0, 1023, 1024, 1536, 5_000_000, 2 ** 41]
  assert.deepEqual(sizes.map(bytesText), [
    '0 B',
    '1023 B',
    '1.0 KiB',
    '1.5 KiB',
    '4.8 MiB',
    '2.0 TiB',
  ])
  const times = [0, 900, 12_345, 119_000, 300_000, 10_000_000, 400_000_000, -5]
  assert.deepEqual(times.map(durationText), [
    '0.0 s',
    '0.9 s',
    '12 s',
    '119 s',
    '5 min',
    '3 h',
    '5 d',
    '0.0 s',
  ])
})

const NODES: RolloutNode[] = [
  { node: 'n-good', state: 'ready', sinceMs: NOW_MS - 3_000 },
  { node: 'n1', state: 'offline', sinceMs: NOW_MS - 1_000 },
  {
    node: 'n2',
    state: 'failed',
    sinceMs: NOW_MS - 61_000,
    reason: { code: 'FUNCTION_LOAD', message: 'SyntaxError: oops\n  at line 1' },
  },
]

function rollout(changes: Partial<Rollout> = {}): Rollout {
  return apiRollout({ createdAtMs: NOW_MS - 5_000, nodes: NODES, ...changes })
}

it('a rollout shows the worst node first, with its reason in one line', () => {
  assert.deepEqual(rolloutLines(output(), rollout(), NOW_MS), [
    '  n2      failed    61 s  FUNCTION_LOAD: SyntaxError: oops',
    '  n1      offline   1.0 s',
    '  n-good  ready     3.0 s',
  ])
})

it('a large fleet is cut, and the summary counts all of it', () => {
  const nodes = Array.from({ length: 500 }, (_, at): RolloutNode => ({
    node: `n${at}`,
    state: 'ready',
    sinceMs: NOW_MS,
  }))
  const all = rollout({ nodes, state: 'done', endedAtMs: NOW_MS })
  const lines = rolloutLines(output(), all)
  assert.equal(lines.length, 21)
  assert.equal(lines.at(-1), '  and 480 more')
  assert.equal(rolloutSummary(output(), all, NOW_MS), 'done after 5.0 s: 500 of 500 nodes ready')
})

it('every state of a rollout has its exit code', () => {
  const codes: [RolloutState, number][] = [
    ['done', 0],
    ['failed', 1],
    ['aborted', 2],
    ['timed-out', 3],
    ['waiting', 4],
    ['rolling', 4],
  ]
  for (const [state, code] of codes) assert.equal(exitCodeOf(state), code, state)
})

it('progress is redrawn on a terminal only, and cut to its width', () => {
  const screen = output(true, 12)
  const block = new ProgressBlock(screen)
  block.show(['\u001b[31mone line that is long\u001b[39m', 'two'])
  block.show(['one'])
  assert.equal(screen.text, '\u001b[31mone line th\u001b[39m\ntwo\n\u001b[2A\u001b[Jone\n')
})

it('progress elsewhere is plain lines, each new one once', () => {
  const log = output()
  const block = new ProgressBlock(log)
  block.show(['a pending', 'b pending'])
  block.show(['a ready', 'b pending'])
  block.show(['a ready', 'b pending'])
  assert.equal(log.text, 'a pending\nb pending\na ready\n')
})

it('functions are listed by name with what serves them', () => {
  const fn = apiFunction('thermo', {
    nodes: [
      { node: 'n1', release: 'r2-abababab', state: 'ready' },
      { node: 'n2', release: 'r2-abababab', state: 'offline' },
    ],
  })
  const echo = apiFunction('echo', { settings: fullSettings({ replicas: 0, replicasMax: 4 }) })
  const text = functionTable(output(), [fn, echo], fn.releases[0]?.createdAtMs ?? 0)
  assert.equal(
    text,
    'NAME    RUNTIME  RELEASE      READY  REPLICAS  RELEASED\n' +
      'echo    nodejs   r2-abababab  0/0    0-4       0.0 s ago\n' +
      'thermo  nodejs   r2-abababab  1/2    2         0.0 s ago\n',
  )
})

it('a function is shown with the names of its environment, never the values', () => {
  const text = functionText(apiFunction('thermo'), NOW_MS)
  assert.match(text, /environment: SECRET/)
  assert.doesNotMatch(text, /hunter2/)
  assert.match(text, /replicas 2/)
  assert.match(text, /on no node/)
})

it('nodes are listed with what they are and whether they are there', () => {
  const nodes = [
    apiNode('n2', { online: false, lastSeenMs: 0 }),
    apiNode('n1', { lastSeenMs: NOW_MS - 2_000 }),
  ]
  assert.equal(
    nodeTable(output(), nodes, NOW_MS),
    'NODE  STATE    SEEN       ARCH   ENGINE  FUNCTIONS  LABELS\n' +
      'n1    online   2.0 s ago  amd64  docker  -          site=north\n' +
      'n2    offline  never      amd64  docker  -          site=north\n',
  )
})

it('a node that refuses its command says why', () => {
  const refusal = { code: 'COMMAND_SIGNATURE', message: 'no signature holds', atMs: 1 }
  const text = nodeText(apiNode('n1', { refusal }), NOW_MS)
  assert.match(text, /refused its last command: COMMAND_SIGNATURE: no signature holds/)
  assert.match(text, /ports: HTTP 8000, CoAP 5683, gRPC 0/)
})

it('a node shows what sleeps, what is tried again when, and what has too little memory', () => {
  const handlers = { ready: 0, starting: 0, restarts: 0 }
  const functions = [
    reportOf('sleeper', RELEASE, { handlers: { ...handlers, paused: 1 } }),
    reportOf('broken', RELEASE, {
      handlers,
      state: 'failed',
      reason: { code: 'FUNCTION_LOAD', message: 'no such module\nat line 1' },
      failures: 4,
      retryAtMs: NOW_MS + 3_000,
    }),
    reportOf('large', RELEASE, { limited: { code: 'MEMORY_BUDGET', message: 'no room' } }),
  ]
  const text = nodeText(apiNode('n1', { heartbeat: heartbeatOf('n1', { functions }) }), NOW_MS)
  assert.match(text, /^sleeper +ready .*0\+0, 1 paused/m)
  assert.match(text, /FUNCTION_LOAD: no such module \(failed 4 times, next try in 3\.0 s\)/)
  assert.match(text, /^large .*MEMORY_BUDGET: no room/m)
})

it('the doctor puts what to do under each finding', () => {
  const text = checkText(output(), [
    { check: 'token', level: 'ok', message: 'there' },
    { check: 'NATS', level: 'fail', message: 'nothing answers', hint: 'start it' },
  ])
  assert.equal(text, 'ok    token  there\nfail  NATS   nothing answers\n             -> start it\n')
})

it('call examples name the node that is here, and do not guess the address of one elsewhere', () => {
  const node = apiNode('n1')
  const url = 'http://127.0.0.1:7420'
  assert.deepEqual(callExamples({ name: 'site/a', url, node, nodes: 1 }), [
    'call it:',
    "  shoal fn invoke site/a --data 'text'",
    "  curl --data 'text' http://127.0.0.1:8000/site/a",
    "  coap-client -m post -e 'text' coap://127.0.0.1/site/a",
  ])
  const remote = callExamples({ name: 'a', url: 'https://fleet.example', node, nodes: 1 })
  assert.match(remote.join('\n'), /http:\/\/<address of n1>:8000\/a/)
  assert.equal(callExamples({ name: 'a', url, node: undefined, nodes: 0 }).length, 2)
})
