import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { eventually } from '#test/eventually.ts'
import { TYPE } from '#test/runner-client.ts'
import { onPath, RunnerScope } from '#test/runner-scope.ts'

const STAY = JSON.stringify({ stay: {} })

/** Answers each body in upper case; some bodies ask for something else. */
const SHELL = `#!/bin/sh
echo starting >&2
echo ready
while read -r id bytes about; do
  body=$(head -c "$bytes")
  case $body in
    exit) echo 'no more' >&2; exit 3 ;;
    hang) echo hanging >&2; sleep 1000 ;;
    slow) echo slow >&2; sleep 0.1 ;;
    noise) echo hello world ;;
    flood) yes x ;;
    giant) echo "$id 99999999"; continue ;;
    fail) echo "$id 0 {\\"error\\": \\"out of cheese\\"}"; continue ;;
    mute) echo "$id 0 {\\"error\\": \\"\\"}"; continue ;;
    odd) echo "$id 0 {\\"status\\": 99}"; continue ;;
    teapot) printf '%s 5 {"status": 418, "headers": {"x-one": "two"}}\\nshort' "$id"; continue ;;
    pid) body=$$ ;;
    about) body=$about ;;
    half) printf '%s 1000\\nhalf' "$id"; exit 0 ;;
  esac
  answer=$(printf %s "$body" | tr a-z A-Z)
  printf '%s %s\\n%s' "$id" "\${#answer}" "$answer"
done
`

const PYTHON = `#!/usr/bin/env python3
import json, sys
inp, out = sys.stdin.buffer, sys.stdout.buffer
out.write(b"ready\\n"); out.flush()
held = []
for line in inp:
    id, count, about = line.split(b" ", 2)
    held.append((id, inp.read(int(count)), json.loads(about)))
    if len(held) == 4:
        for id, body, about in reversed(held):
            answer = about["path"].encode() + b" " + body
            out.write(b"%s %d\\n%s" % (id, len(answer), answer))
        out.flush()
        held.clear()
`

const GO = `package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
)

func main() {
	in := bufio.NewReader(os.Stdin)
	fmt.Println("ready")
	for {
		var id, bytes int
		line, err := in.ReadString('\\n')
		if err != nil {
			return
		}
		fmt.Sscan(line, &id, &bytes)
		body := make([]byte, bytes)
		io.ReadFull(in, body)
		fmt.Printf("%d %d\\n%s", id, bytes, body)
	}
}
`

/** Answers "large" with 600,000 bytes, "giant" with 10,000,000, and else with what it is sent. */
const LARGE = `#!/bin/sh
echo ready
while read -r id bytes about; do
  body=$(head -c "$bytes")
  case $body in
    large) size=600000 ;;
    giant) size=10000000 ;;
    *) printf '%s %s\\n%s' "$id" "$bytes" "$body"; continue ;;
  esac
  echo "$id $size"
  head -c "$size" /dev/zero
done
`

const LARGE_FILES = { 'fn.sh': LARGE, 'shoal.json': STAY }

async function shell(stay: object = {}): Promise<RunnerScope> {
  const files = { 'fn.sh': SHELL, 'shoal.json': JSON.stringify({ stay }) }
  return RunnerScope.start({ runtime: 'binary', fn: files })
}

describe('runner binary: programs that stay alive', { timeout: 60_000 }, () => {
  it('one program of sh answers many calls, in its own words', async () => {
    await using scope = await shell()
    const session = await scope.ready()
    const first = await session.call({ body: 'pid' })
    for (const body of ['one', '', 'grüße 3']) {
      const answer = await session.call({ body })
      assert.deepEqual([answer.error, answer.status], [undefined, 200])
      assert.equal(
        answer.text,
        body.replaceAll(/[a-z]/g, (letter) => letter.toUpperCase()),
      )
    }
    assert.equal((await session.call({ body: 'pid' })).text, first.text)
    const teapot = await session.call({ body: 'teapot' })
    assert.deepEqual([teapot.status, teapot.headers, teapot.text], [418, ['x-one', 'two'], 'short'])
    const failed = await session.call({ body: 'fail' })
    assert.deepEqual(failed.error, { kind: 0, text: 'out of cheese' })
    const mute = await session.call({ body: 'mute' })
    assert.deepEqual(mute.error, { kind: 0, text: 'the program failed and did not say why' })
    assert.equal((await session.call({ body: 'odd' })).error?.kind, 2)
    assert.equal((await session.call({ body: 'pid' })).text, first.text, 'the same program still')
  })

  it('is told method, path, query, headers and deadline', async () => {
    await using scope = await shell()
    const session = await scope.ready()
    const request = {
      method: 'PUT',
      path: '/a',
      query: 'b=1',
      headers: ['x-one', '1', 'x-one', '2'],
    }
    const answer = await session.call({ ...request, body: 'about', deadlineMs: 1_234 })
    assert.deepEqual(JSON.parse(answer.text.toLowerCase()), {
      method: 'put',
      path: '/a',
      query: 'b=1',
      deadlinems: 1_234,
      headers: { 'x-one': '1, 2' },
    })
  })

  it('a program of Python takes many calls at once and answers them in any order', async () => {
    const settings = JSON.stringify({ stay: { callsAtOnce: 4 } })
    const fn = { fn: PYTHON, 'shoal.json': settings }
    await using scope = await RunnerScope.start({ runtime: 'binary', fn })
    const session = await scope.ready({ entry: 'fn' })
    const bodies = Array.from({ length: 12 }, (_, at) => `body ${at}`)
    const answers = await Promise.all(
      bodies.map(async (body, at) => session.call({ path: `/${at}`, body })),
    )
    assert.deepEqual(
      answers.map(({ text }) => text),
      bodies.map((body, at) => `/${at} ${body}`),
    )
  })

  const go = onPath('go')
  if (go !== undefined) {
    it('a program of Go gives 3 MiB back unchanged', async () => {
      const folder = await mkdtemp(join(tmpdir(), 'shoal-test-stay-'))
      try {
        await writeFile(join(folder, 'main.go'), GO)
        const env = { ...process.env, CGO_ENABLED: '0', GO111MODULE: 'off' }
        execFileSync(go, ['build', '-o', 'program', 'main.go'], { cwd: folder, env })
        await using scope = await RunnerScope.start({
          runtime: 'binary',
          fn: { 'shoal.json': STAY, 'fn.sh': `#!/bin/sh\nexec ${folder}/program\n` },
        })
        const session = await scope.ready()
        const body = Buffer.alloc(3 * 1024 * 1024, 'grüße')
        const call = session.begin({ body: body.subarray(0, 1_000) }, false)
        await session.sendBody(call, body.subarray(1_000), true)
        const answer = await call.answer()
        assert.equal(answer.error, undefined)
        assert.ok(answer.body.equals(body))
      } finally {
        await rm(folder, { recursive: true })
      }
    })
  }

  it('several programs share the calls', async () => {
    await using scope = await shell({ programs: 3 })
    const session = await scope.ready()
    await eventually(async () => {
      const calls = Array.from({ length: 6 }, async () => session.call({ body: 'pid' }))
      return new Set((await Promise.all(calls)).map(({ text }) => text)).size === 3
    })
  })

  it('what it writes to stderr is the log of the call it works on', async () => {
    await using scope = await shell()
    const session = await scope.ready()
    const call = session.begin({ body: 'exit' })
    await call.answer()
    assert.equal((await session.log(({ text }) => text === 'starting')).id, 0)
    assert.equal((await session.log(({ text }) => text === 'no more')).id, call.id)
  })

  const ends = [
    { body: 'exit', kind: 5, text: /^the program ended: exit status 3: no more/ },
    { body: 'half', kind: 5, text: /^the program ended: exit status 0/ },
    { body: 'noise', kind: 2, text: /wrote "hello world\\n", which is no line/ },
    { body: 'flood', kind: 2, text: /wrote "x\\n", which is no line/ },
    { body: 'giant', kind: 2, text: /99999999.*at most 16777216 bytes/ },
  ]
  for (const { body, kind, text } of ends) {
    it(`a call that meets the program's end (${body}) fails with kind ${kind}, the next finds a new one`, async () => {
      await using scope = await shell()
      const session = await scope.ready()
      const { text: pid } = await session.call({ body: 'pid' })
      const { error } = await session.call({ body })
      assert.equal(error?.kind, kind, error?.text)
      assert.match(error.text, text)
      const next = await session.call({ body: 'pid' })
      assert.equal(next.error, undefined)
      assert.notEqual(next.text, pid)
      await session.log(({ level, text: line }) => level === 2 && line.includes('started again in'))
    })
  }

  it('a call that hangs and is cancelled costs the program; one that ends in time does not', async () => {
    await using scope = await shell()
    const session = await scope.ready()
    const pidOf = async (): Promise<string> => {
      const { text, error } = await session.call({ body: 'pid' })
      assert.equal(error, undefined)
      return text
    }
    const keptBySlow = async (): Promise<boolean> => {
      const before = await pidOf()
      const slow = session.begin({ body: 'slow' })
      // Else the call may be gone before the program has seen it.
      await session.log((line) => line.id === slow.id && line.text === 'slow')
      session.cancel(slow)
      assert.equal((await slow.answer()).error?.kind, 3)
      return (await pidOf()) === before
    }
    // Its 100 ms may take longer than the runner's patience (300 ms) on a busy machine, but not each time.
    let kept = false
    for (let attempt = 0; attempt < 5 && !kept; attempt += 1) kept = await keptBySlow()
    assert.ok(kept, 'the program has ended each time')
    const pid = await pidOf()
    const hung = session.begin({ body: 'hang' })
    await session.log((line) => line.text === 'hanging')
    const startedAt = performance.now()
    session.cancel(hung)
    assert.equal((await hung.answer()).error?.kind, 3)
    assert.ok(performance.now() - startedAt < 10_000)
    const next = await session.call({ body: 'pid' })
    assert.notEqual(next.text, pid)
    await eventually(async () =>
      readFile(`/proc/${pid}/stat`).then(
        () => false,
        () => true,
      ),
    )
  })

  it('calls that wait for a place can be cancelled, and end with the connection', async () => {
    await using scope = await shell()
    const session = await scope.ready()
    session.begin({ body: 'hang' })
    const waits = session.begin({ body: 'one' })
    session.cancel(waits)
    assert.equal((await waits.answer()).error?.kind, 3)
    session.begin({ body: 'one' })
    session.socket.destroy()
    const again = await scope.again()
    assert.equal((await again.call({ body: 'two' })).text, 'TWO')
  })

  it('a program that ends before it is ready cannot be loaded, and says why', async () => {
    const fn = { 'shoal.json': STAY, 'fn.sh': '#!/bin/sh\necho no cheese >&2\nexit 4\n' }
    await using scope = await RunnerScope.start({ runtime: 'binary', fn })
    const session = await scope.listener.session()
    const ready = await session.init({ dir: scope.dir })
    assert.equal(ready['ok'], false)
    assert.match(String(ready['error']), /exit status 4: no cheese/)
  })

  it('first word other than ready, an unknown setting, a number out of range: not loaded', async () => {
    const wrong = [
      {
        files: { 'fn.sh': '#!/bin/sh\necho hello\n', 'shoal.json': STAY },
        error: /must be `ready`/,
      },
      { files: { 'fn.sh': SHELL, 'shoal.json': '{"stay": {"many": 1}}' }, error: /unknown field/ },
      { files: { 'fn.sh': SHELL, 'shoal.json': '{"stay": {"programs": 65}}' }, error: /1 to 64/ },
    ]
    for (const { files, error } of wrong) {
      await using scope = await RunnerScope.start({ runtime: 'binary', fn: files })
      const session = await scope.listener.session()
      const ready = await session.init({ dir: scope.dir })
      assert.match(String(ready['error']), error)
    }
  })

  it('a program that keeps ending: calls are told so in place of waiting', async () => {
    const fn = {
      'shoal.json': STAY,
      'fn.sh':
        '#!/bin/sh\n[ -e ../once ] && exit 5\ntouch ../once\necho ready\nread -r line\nexit 5\n',
    }
    await using scope = await RunnerScope.start({ runtime: 'binary', fn })
    const session = await scope.ready()
    assert.equal((await session.call()).error?.kind, 5)
    const { error } = await session.call()
    assert.equal(error?.kind, 1)
    assert.match(error.text, /the program keeps ending: .*exit status 5/)
  })

  it('shutdown lets the call end, and the program goes with the runner', async () => {
    await using scope = await shell()
    const session = await scope.ready()
    const { text: pid } = await session.call({ body: 'pid' })
    const call = session.begin({ body: 'slow' })
    session.send(TYPE.SHUTDOWN, 0)
    assert.equal((await call.answer()).text, 'SLOW')
    assert.equal(await scope.exited, 0)
    await assert.rejects(readFile(`/proc/${pid}/stat`))
  })

  it('a caller that does not read its answer holds up nobody else', async () => {
    await using scope = await RunnerScope.start({ runtime: 'binary', fn: LARGE_FILES })
    const session = await scope.ready()
    session.autoGrant = false
    const slow = session.begin({ body: 'large' })
    await eventually(() => slow.bodyBytes === session.windowBytes)
    assert.equal((await session.call({ body: 'small' })).text, 'small')
    session.grant(slow, session.windowBytes)
    await eventually(() => slow.bodyBytes === 2 * session.windowBytes)
    session.grant(slow, session.windowBytes)
    assert.equal((await slow.answer()).body.length, 600_000)
  })

  it('answers that nobody reads keep their places when there are too many', async () => {
    await using scope = await RunnerScope.start({ runtime: 'binary', fn: LARGE_FILES })
    const session = await scope.ready()
    session.autoGrant = false
    const giants = ['giant', 'giant', 'giant', 'giant', 'giant'].map((body) =>
      session.begin({ body }),
    )
    await eventually(() => giants.filter(({ bodyBytes }) => bodyBytes > 0).length === 4)
    const small = session.begin({ body: 'small' })
    assert.equal(
      await Promise.race([small.answer(), sleep(300, 'none')]),
      'none',
      'more is held than there is room for',
    )
    for (const giant of giants) session.cancel(giant)
    assert.equal((await small.answer()).text, 'small')
  })

  it('one that closes its input still gives the answers that it owes, and is then started again', async () => {
    const program = `#!/bin/sh
echo ready
for at in 1 2; do read -r id bytes about; head -c "$bytes"; ids="$ids $id"; done >/dev/null
exec 0<&-
touch closed
while [ ! -e go ]; do sleep 0.01; done
for id in $ids; do echo "$id 0"; done
exec sleep 1000
`
    const files = { 'fn.sh': program, 'shoal.json': '{"stay": {"callsAtOnce": 8}}' }
    await using scope = await RunnerScope.start({ runtime: 'binary', fn: files })
    const session = await scope.ready()
    const owed = [session.begin(), session.begin()]
    await eventually(() => existsSync(join(scope.dir, 'closed')))
    assert.equal((await session.call()).error?.kind, 5)
    await writeFile(join(scope.dir, 'go'), '')
    for (const call of owed) assert.equal((await call.answer()).status, 200)
    for (const call of [session.begin(), session.begin()]) {
      assert.equal((await call.answer()).status, 200, 'by the next program')
    }
  })

  it('one that closes its input and answers unasked is started again, and cancels are heard', async () => {
    const guessing = 'echo ready; exec 0<&-; for id in 1 2 3 4; do sleep 0.2; echo "$id 0"; done'
    await using scope = await RunnerScope.start({
      runtime: 'binary',
      fn: { 'fn.sh': `#!/bin/sh\n${guessing}\nexec sleep 1000\n`, 'shoal.json': STAY },
    })
    const session = await scope.ready()
    for (let at = 0; at < 3; at += 1) {
      const call = session.begin()
      await Promise.race([call.answer(), sleep(700)])
      session.cancel(call)
      await call.answer()
    }
    assert.equal(session.inFlight, 0)
  })
})
