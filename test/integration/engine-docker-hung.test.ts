import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import Docker from 'dockerode'
import { ExitWatch } from '#agent/handlers/docker/exit-watch.ts'
import type { HandlerExit } from '#agent/handlers/index.ts'
import { eventually } from '#test/eventually.ts'
import { hungEngine, type Listed } from '#test/hung-engine.ts'
import { tempFolder } from '#test/temp.ts'

const LABELS = { shoal: 'here', 'shoal.handler': 'handler1' }
const ENDED = { ...LABELS, exitCode: '3' }
const EXIT = { id: 'handler1', exitCode: 3, oomKilled: false }

describe('the watch for ends, when the daemon half hangs', () => {
  for (const question of ['events', 'list'] as const) {
    it(`keeps no event stream that it has given up, while ${question} is not answered`, async () => {
      await using folder = await tempFolder()
      await using daemon = await hungEngine(folder.join('d.sock'), question)
      using watch = watching(daemon.path, 50)
      watch.add('handler1', 'container1')
      await eventually(() => daemon.asked.events >= 4)
      assert.ok(daemon.open <= 1, `${daemon.open} of ${daemon.asked.events} are open`)
      daemon.answer([listed('container1', 'running')])
      await eventually(() => {
        daemon.tellDie('container1', ENDED)
        return watch.exits.length > 0
      })
      assert.deepEqual(watch.exits, [EXIT])
      assert.equal(watch.lost.length, 1)
      watch[Symbol.dispose]()
      await eventually(() => daemon.open === 0)
    })
  }

  it('reports no end of what was started while the list was on its way', async () => {
    await using folder = await tempFolder()
    await using daemon = await hungEngine(folder.join('d.sock'), 'list')
    using watch = watching(daemon.path, 10_000)
    await eventually(() => daemon.asked.list === 1)
    watch.add('handler1', 'container1')
    daemon.answer([])
    await eventually(() => {
      daemon.tellDie('container1', ENDED)
      return watch.exits.length > 0
    })
    assert.deepEqual(watch.exits, [EXIT])
  })

  it('reports an end that came after the stream was opened and before the list was made', async () => {
    await using folder = await tempFolder()
    await using daemon = await hungEngine(folder.join('d.sock'), 'list')
    using watch = watching(daemon.path, 10_000)
    await eventually(() => daemon.asked.list === 1)
    daemon.tellDie('container1', ENDED)
    daemon.answer([listed('container1', 'exited')])
    await eventually(() => watch.exits.length > 0)
    assert.deepEqual(watch.exits, [EXIT])
  })

  it('reports the end of one that nobody here has started, once', async () => {
    await using folder = await tempFolder()
    await using daemon = await hungEngine(folder.join('d.sock'), 'list')
    using watch = watching(daemon.path, 10_000)
    await eventually(() => daemon.asked.list === 1)
    daemon.answer([])
    await eventually(() => {
      daemon.tellDie('container1', ENDED)
      return watch.exits.length > 0
    })
    daemon.tellDie('container1', ENDED)
    daemon.tellDie('container2', { ...ENDED, 'shoal.handler': 'handler2' })
    await eventually(() => watch.exits.some(({ id }) => id === 'handler2'))
    assert.equal(watch.exits.length, 2)
  })

  it('reports no end of what was stopped while the list was on its way', async () => {
    await using folder = await tempFolder()
    await using daemon = await hungEngine(folder.join('d.sock'), 'list')
    using watch = watching(daemon.path, 10_000)
    watch.add('handler1', 'container1')
    watch.add('handler2', 'container2')
    await eventually(() => daemon.asked.list === 1)
    watch.delete('handler1')
    daemon.answer([listed('container1', 'running')])
    await eventually(() => watch.exits.length > 0)
    daemon.tellDie('container1', ENDED)
    watch.add('handler3', 'container3')
    daemon.tellDie('container3', { ...ENDED, 'shoal.handler': 'handler3' })
    await eventually(() => watch.exits.some(({ id }) => id === 'handler3'))
    assert.deepEqual(
      watch.exits.map(({ id }) => id),
      ['handler2', 'handler3'],
    )
  })
})

function watching(socketPath: string, callMs: number) {
  const exits: HandlerExit[] = []
  const lost: Error[] = []
  const watch = new ExitWatch({
    docker: new Docker({ socketPath }),
    installation: 'here',
    onExit: (exit) => exits.push(exit),
    onLost: (error) => lost.push(error),
    callMs,
  })
  return Object.assign(watch, { exits, lost })
}

function listed(Id: string, State: string): Listed {
  return { Id, State, Labels: LABELS }
}
