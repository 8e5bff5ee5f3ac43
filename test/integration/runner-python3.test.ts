import assert from 'node:assert/strict'
import { constants } from 'node:os'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { eventually } from '#test/eventually.ts'
import type { RunnerSession } from '#test/runner-client.ts'
import { checkAnswers, type Files } from '#test/runner-rows.ts'
import { RunnerScope } from '#test/runner-scope.ts'

const py = (text: string): Files => ({ 'fn.py': text })

/** Its child prints and logs to a file, and says by how much that made it grow. */
const PRINTING_CHILD = `import json, logging, os, signal, tempfile, time

def memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def fn(input):
    print("of the parent", end="")
    reading, writing = os.pipe()
    file = tempfile.TemporaryFile()
    child = os.fork()
    if child == 0:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        before = memory()
        for _ in range(100_000):
            print("x" * 100)
        logging.getLogger("child").warning("the end")
        os.write(writing, b"%d" % (memory() - before))
        time.sleep(5)
        os._exit(0)
    grown = int(os.read(reading, 20))
    os.kill(child, signal.SIGTERM)
    status = os.waitpid(child, 0)[1]
    file.seek(0)
    lines = file.read().decode().splitlines() or [""]
    seen = {"lines": len(lines), "first": lines[0], "last": lines[-1], "signal": os.WTERMSIG(status)}
    return json.dumps({"grown": grown, **seen})
`

describe('python3: contracts', { timeout: 60_000 }, () => {
  checkAnswers('python3', [
    {
      name: 'fn(input): None without a body',
      files: py('def fn(input):\n  return repr(input)'),
      text: 'None',
    },
    {
      name: 'fn(input, headers): names in Title-Case',
      files: py(
        'def fn(input, headers):\n  return input + headers["X-Lab"] + headers["Content-Length"]',
      ),
      request: { body: 'ü', headers: ['x-lab', '7'] },
      text: 'ü72',
    },
    { name: 'None is an empty answer', files: py('def fn(input):\n  pass'), text: '' },
    {
      name: 'a dict is JSON',
      files: py('def fn(input):\n  return {"a": "ü"}'),
      text: '{"a": "ü"}',
    },
    { name: 'async fn', files: py('async def fn(input):\n  return "async"'), text: 'async' },
    {
      name: 'handle: body and status',
      files: py('def handle(request, context):\n  return request.json(), 201'),
      request: { body: '[1]' },
      status: 201,
      text: '[1]',
      header: ['content-type', 'application/json'],
    },
    {
      name: 'handle: body, status and headers',
      files: py('def handle(request, context):\n  return "no", 418, {"X-Pot": "tea"}'),
      status: 418,
      header: ['x-pot', 'tea'],
    },
    {
      name: 'a coroutine from a function that is not async',
      files: py(
        'async def work():\n  return "worked"\ndef handle(request, context):\n  return work()',
      ),
      text: 'worked',
    },
    {
      name: 'main.py and a named function',
      files: {
        'src/main.py': 'import beside\ndef answer(request, context):\n  return beside.X',
        'src/beside.py': 'X = "beside"',
      },
      init: { entry: 'src/main.py:answer' },
      text: 'beside',
    },
    {
      name: 'installed requirements are found in .deps, also by .pth',
      files: {
        'fn.py': 'import dep, far\ndef fn(input):\n  return dep.X + far.Y',
        '.deps/dep.py': 'X = "dep"',
        '.deps/far.pth': 'elsewhere\n',
        '.deps/elsewhere/far.py': 'Y = "far"',
      },
      text: 'depfar',
    },
    {
      name: 'output may be configured as that of any program',
      files: py(
        'import sys\nsys.stdout.reconfigure(line_buffering=True)\ndef fn(input):\n  return "ok"',
      ),
      text: 'ok',
    },
    {
      name: 'a pool of processes that print',
      files: py(
        'from multiprocessing import Pool\ndef twice(number):\n  print(number)\n  return 2 * number\ndef fn(input):\n  with Pool(2) as pool:\n    return pool.map(twice, [1, 2, 3])',
      ),
      text: '[2, 4, 6]',
    },
    {
      name: 'sys.exit fails the call, the process stays',
      files: py('import sys\ndef fn(input):\n  sys.exit(3)'),
      error: /SystemExit: 3/,
    },
    {
      name: 'the runner is not in the way of modules with its names',
      files: {
        'fn.py': 'import protocol\ndef fn(input):\n  return protocol.X',
        'protocol.py': 'X = "own"',
      },
      text: 'own',
    },
  ])

  it('the logging module keeps its levels', async () => {
    await using scope = await RunnerScope.start({
      runtime: 'python3',
      fn: py(
        'import logging\nlogging.basicConfig(level=logging.DEBUG, format="%(message)s")\ndef fn(input):\n  logging.debug("d")\n  logging.info("i")\n  logging.warning("w")\n  logging.error("e")\n  return "ok"',
      ),
    })
    const session = await scope.ready()
    const call = session.begin()
    await call.answer()
    const own = session.logs.filter(({ id }) => id === call.id)
    assert.deepEqual(
      own.map(({ level, text }) => `${level}${text}`),
      ['0d', '1i', '2w', '3e'],
    )
  })

  it('a function that forks: the child ends with the call, the parent goes on', async () => {
    await using scope = await RunnerScope.start({
      runtime: 'python3',
      fn: py('import os\ndef fn(input):\n  return "child" if os.fork() == 0 else "parent"'),
    })
    const session = await scope.ready()
    for (let round = 0; round < 3; round += 1) assert.equal((await session.call()).text, 'parent')
  })

  it('what a child prints goes to the output of the container, and the child can be told to end', async () => {
    await using scope = await RunnerScope.start({ runtime: 'python3', fn: py(PRINTING_CHILD) })
    const session = await scope.ready()
    const call = session.begin()
    const { grown, ...seen } = JSON.parse((await call.answer()).text)
    assert.deepEqual(seen, {
      lines: 100_001,
      first: 'x'.repeat(100),
      last: 'the end',
      signal: constants.signals.SIGTERM,
    })
    assert.ok(grown < 4 * 1024 * 1024, `the child has grown by ${grown} bytes`)
    assert.deepEqual(
      session.logs.map(({ id, text }) => [id, text]),
      [[call.id, 'of the parent']],
    )
  })
})

/** Of the address space there is little, and each thread takes much of it. */
const FEW_THREADS = { before: ['prlimit', '--as=600000000', '--'] }
const big = (mib: number): string => `import threading, time\nthreading.stack_size(${mib} << 20)\n`

describe('python3: when no more threads can be started', { timeout: 60_000 }, () => {
  it('calls wait for the threads that there are, and the runner goes on', async () => {
    await using scope = await RunnerScope.start({
      runtime: 'python3',
      fn: py(`${big(100)}def fn(input):\n  time.sleep(0.2)\n  return "slept"`),
      ...FEW_THREADS,
    })
    const session = await scope.ready()
    for (let round = 0; round < 2; round += 1) {
      const calls = Array.from({ length: 12 }, () => session.begin())
      await eventually(() => calls.every(({ done }) => done))
      for (const call of calls) assert.equal((await call.answer()).text, 'slept')
    }
  })

  it('without any thread calls fail, and the runner can tell why', async () => {
    await using scope = await RunnerScope.start({
      runtime: 'python3',
      fn: py(`${big(900)}def fn(input):\n  return "quick"`),
      ...FEW_THREADS,
    })
    const session = await scope.ready()
    for (let round = 0; round < 3; round += 1) {
      const { error } = await session.call()
      assert.equal(error?.kind, 4)
      assert.match(error.text, /no thread could be started/)
    }
  })

  it('answers that the agent does not take at once still leave', async () => {
    await using scope = await RunnerScope.start({
      runtime: 'python3',
      fn: py(
        `${big(100)}def fn(input):\n  time.sleep(0.1)\n  return "x" * 200_000 if input else "slept"`,
      ),
      ...FEW_THREADS,
    })
    const session = await scope.ready()
    await Promise.all(Array.from({ length: 12 }, async () => session.call()))
    session.socket.pause()
    const calls = Array.from({ length: 12 }, () => session.begin({ body: 'large' }))
    await sleep(1_000)
    session.socket.resume()
    await session.ping()
    await eventually(() => calls.every(({ done }) => done))
    for (const call of calls) assert.equal((await call.answer()).body.length, 200_000)
  })
})

/** Functions whose calls last until they are interrupted; cleaning up takes a moment. */
const LETS_GO: Readonly<Record<string, Files>> = {
  'a loop': py(
    'import time\ndef fn(input):\n  try:\n    print("begun\\n", end="")\n    while True: time.sleep(0.01)\n  finally:\n    time.sleep(0.5)\n    print("let go\\n", end="")',
  ),
  'a body that nobody takes': py(
    'import time\ndef handle(request):\n  try:\n    print("begun\\n", end="")\n    while True: yield "x" * 65536\n  finally:\n    time.sleep(0.5)\n    print("let go\\n", end="")',
  ),
  async: py(
    'import asyncio\nasync def fn(input):\n  try:\n    print("begun\\n", end="")\n    await asyncio.sleep(60)\n  finally:\n    await asyncio.sleep(0.5)\n    print("let go\\n", end="")',
  ),
}

/** Its cleaning up takes the descriptor of the connection that has just been lost, and waits for what comes by it. */
const LISTENS_LATE = `import asyncio, socket
kept, seen = [], []

async def fn(input):
    if input is None:
        return "".join(seen)
    try:
        print("begun\\n", end="")
        await asyncio.sleep(60)
    finally:
        near, far = socket.socketpair()
        kept.extend((near, far))
        asyncio.get_running_loop().add_reader(near, lambda: seen.append(near.recv(9).decode()))
        far.send(b"heard")
`

/** No number below 1,024 is free for the next connection. */
const MANY_FILES = `import asyncio, os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (2_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
open_one = lambda: os.open("/dev/null", os.O_RDONLY)
files = [open_one() for _ in range(1_100)]

async def fn(input):
    if input is None:
        return "ok"
    try:
        print("begun\\n", end="")
        await asyncio.sleep(60)
    finally:
        files.append(open_one())
`

/** Waits for so many lines; what calls that go on have logged leaves with the next answer, here that to a ping. */
async function lines(session: RunnerSession, line: string, count: number): Promise<void> {
  await eventually(async () => {
    await session.ping()
    return session.logs.filter(({ text }) => text === line).length === count
  })
}

describe('python3: calls whose connection is lost', { timeout: 60_000 }, () => {
  for (const [name, fn] of Object.entries(LETS_GO)) {
    for (const cancelled of [false, true]) {
      it(`are interrupted once: ${name}${cancelled ? ', cancelled before' : ''}`, async () => {
        await using scope = await RunnerScope.start({ runtime: 'python3', fn })
        const first = await scope.ready()
        first.autoGrant = false
        const calls = Array.from({ length: 3 }, () => first.begin())
        await lines(first, 'begun', calls.length)
        if (cancelled) for (const call of calls) first.cancel(call)
        await first.ping()
        first.socket.destroy()
        const second = await scope.again()
        await lines(second, 'let go', calls.length)
      })
    }
  }

  it('take no place from others, where they cannot be interrupted', async () => {
    await using scope = await RunnerScope.start({
      runtime: 'python3',
      fn: py(
        'import time\ndef fn(input):\n  if input is None: return "ok"\n  print("hangs\\n", end="")\n  time.sleep(1000)',
      ),
    })
    let session = await scope.ready({ concurrency: 2 })
    for (let round = 0; round < 3; round += 1) {
      const hanging = [session.begin({ body: 'hang' }), session.begin({ body: 'hang' })]
      await lines(session, 'hangs', hanging.length)
      session.socket.destroy()
      session = await scope.again()
      assert.equal((await session.call()).text, 'ok')
    }
  })

  it('a descriptor that the connection had and the function has now stays its own', async () => {
    await using scope = await RunnerScope.start({ runtime: 'python3', fn: py(LISTENS_LATE) })
    const first = await scope.ready()
    first.begin({ body: 'wait' })
    await lines(first, 'begun', 1)
    first.socket.destroy()
    const second = await scope.again()
    await eventually(async () => (await second.call()).text === 'heard')
  })

  it('a function with more than 1,024 open files finds the agent again', async () => {
    await using scope = await RunnerScope.start({ runtime: 'python3', fn: py(MANY_FILES) })
    const first = await scope.ready()
    first.begin({ body: 'wait' })
    await lines(first, 'begun', 1)
    first.socket.destroy()
    const second = await scope.again()
    assert.equal((await second.call()).text, 'ok')
  })
})
