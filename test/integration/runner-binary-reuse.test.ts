import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { encodeRequest, FrameReader, TYPE } from '#test/runner-client.ts'
import { RunnerScope } from '#test/runner-scope.ts'

const PER_CALL = `#!/bin/sh
[ "$SHOAL_PATH" = /fail ] && exit 1
printf ok
`
const STAYS = `#!/bin/sh
echo ready
while read -r id bytes about; do
  case $about in
    *'"/fail"'*) echo "$id 0 {\\"error\\": \\"no\\"}" ;;
    *) printf '%s 2\\nok' "$id" ;;
  esac
done
`
const FUNCTIONS = [
  { name: 'a process per call', fn: { 'fn.sh': PER_CALL } },
  { name: 'a program that stays', fn: { 'fn.sh': STAYS, 'shoal.json': '{"stay": {}}' } },
]
/** Logs when it is told to end, which is after its call and the connection have ended. */
const LATE = `#!/bin/sh
echo ready
read -r id bytes about
trap 'echo late >&2; exit' TERM
echo begun >&2
sleep 1000 &
wait
`
const IDS = 8
const CALLS = 2_000

describe('runner binary: a call gets the id of another the moment that has ended', () => {
  for (const { name, fn } of FUNCTIONS) {
    it(name, { timeout: 60_000 }, async () => {
      await using scope = await RunnerScope.start({ runtime: 'binary', fn })
      // As many calls as ids: a call that still counts although its last frame has left is seen as one too many.
      const session = await scope.ready({ concurrency: IDS })
      const { socket } = session
      const all = Promise.withResolvers<void>()
      void session.closed.then(() => all.reject(new Error('the runner closed the connection')))
      const reader = new FrameReader()
      let sent = 0
      let ended = 0
      const next = (id: number): void => {
        const path = sent % 3 === 0 ? '/fail' : '/ok'
        sent += 1
        socket.write(encodeRequest(id, { path }))
      }
      socket.on('data', (bytes: Buffer) => {
        for (const { type, id, end, payload } of reader.push(bytes)) {
          if (type !== TYPE.ERROR && !end) continue
          const kind = type === TYPE.ERROR ? payload.readUInt8(0) : undefined
          if (kind !== undefined && kind !== 0) all.reject(new Error(payload.toString('utf8', 1)))
          ended += 1
          if (sent < CALLS) next(id)
          else if (ended === CALLS) all.resolve()
        }
      })
      for (let id = 1; id <= IDS; id += 1) next(id)
      await all.promise
      assert.equal(ended, CALLS)
    })
  }

  it("what a program logs for a call of a connection that is gone is nobody else's", async () => {
    const fn = { 'fn.sh': LATE, 'shoal.json': '{"stay": {}}' }
    await using scope = await RunnerScope.start({ runtime: 'binary', fn })
    const first = await scope.ready()
    const { id } = first.begin()
    assert.equal((await first.log(({ text }) => text === 'begun')).id, id)
    first.socket.destroy()
    const second = await scope.again()
    assert.equal(second.begin().id, id)
    assert.equal((await second.log(({ text }) => text === 'late')).id, 0)
  })
})
