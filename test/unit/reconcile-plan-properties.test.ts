import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import * as fc from 'fast-check'
import {
  plan,
  type Actual,
  type ActualFunction,
  type ActualHandler,
  type Desired,
  type HandlerPhase,
  type Step,
} from '#agent/reconcile/index.ts'

/** A node whose engine does what it is told, or fails, as a random source says; it has one function. */
class World {
  desired: Desired | undefined
  bundle: ActualFunction['bundle'] = 'absent'
  routing: string | undefined
  failures = 0
  handlers: Mutable<ActualHandler>[] = []
  orphans: string[] = []
  engine: Actual['engine'] = 'present'
  starts = 0

  actual(): Actual {
    const { bundle, routing, failures } = this
    const fn = {
      fn: 'f',
      handlers: structuredClone(this.handlers),
      bundle,
      routing,
      failures,
      retryAtMs: 0,
    }
    const known = this.desired !== undefined || this.handlers.length > 0 || routing !== undefined
    const functions = known ? [fn] : []
    return { engine: this.engine, functions, orphans: this.orphans.map((id) => ({ id })) }
  }

  plan(): Step[] {
    return plan(this.desired === undefined ? [] : [this.desired], this.actual(), 0)
  }

  apply(step: Step): void {
    const one = 'id' in step ? this.handlers.find(({ id }) => id === step.id) : undefined
    switch (step.kind) {
      case 'route':
        this.routing = this.desired?.routing
        break
      case 'unroute':
        this.routing = undefined
        break
      case 'fetch':
        this.bundle = 'fetching'
        break
      case 'start':
        this.handlers.push({
          id: `h${this.starts++}`,
          spec: this.desired?.spec ?? '',
          phase: 'starting',
          proven: false,
        })
        break
      case 'adopt':
        if (one) one.phase = 'starting'
        break
      case 'attach':
        if (one) Object.assign(one, { phase: 'serving', proven: true })
        break
      case 'drain':
        if (one) one.phase = 'draining'
        break
      case 'stop':
        if (one) one.phase = 'stopping'
        break
      case 'forget':
        break
      case 'remove-orphan':
        this.orphans = this.orphans.filter((id) => id !== step.id)
        break
    }
  }

  /** Everything that is under way ends well. */
  finish(): void {
    if (this.bundle === 'fetching') this.bundle = 'present'
    this.handlers = this.handlers.filter(({ phase }) => phase !== 'stopping')
    for (const one of this.handlers) {
      if (one.phase === 'starting') Object.assign(one, { phase: 'ready' })
      if (one.phase === 'draining') one.phase = 'drained'
    }
    if (this.handlers.some(({ phase }) => phase === 'serving')) this.failures = 0
  }
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

const PHASES: readonly HandlerPhase[] = [
  'found',
  'starting',
  'ready',
  'serving',
  'draining',
  'drained',
  'dead',
  'stopping',
]

const handlers = fc.array(
  fc.record({
    spec: fc.constantFrom('a', 'b', 'c'),
    phase: fc.constantFrom(...PHASES),
    proven: fc.boolean(),
    suspect: fc.constantFrom(
      undefined,
      undefined,
      undefined,
      'overrun' as const,
      'blocked' as const,
    ),
  }),
  { maxLength: 6 },
)

const wish = fc.option(
  fc.record({
    fn: fc.constant('f'),
    spec: fc.constantFrom('a', 'b', 'c', undefined),
    replicas: fc.integer({ min: 1, max: 4 }),
    routing: fc.constantFrom('r', 's'),
  }),
  { nil: undefined },
)

const world = fc
  .record({
    desired: wish,
    bundle: fc.constantFrom('absent' as const, 'fetching' as const, 'present' as const),
    routing: fc.constantFrom(undefined, 'r', 's'),
    failures: fc.integer({ min: 0, max: 3 }),
    orphans: fc.subarray(['x', 'y']),
    handlers,
  })
  .map((start) => {
    const made = new World()
    Object.assign(made, start)
    made.handlers = start.handlers.map(({ suspect, proven, ...one }, index) => ({
      ...one,
      id: `g${index}`,
      // As in life: only what has served is under suspicion.
      proven: proven || one.phase === 'serving' || one.phase === 'found',
      ...(suspect === undefined || one.phase !== 'serving' ? {} : { suspect }),
    }))
    return made
  })

const ROUNDS_MAX = 20

describe('plan, whatever the state it meets', () => {
  it('reaches what is wanted within a few rounds, and is silent then', () => {
    let converged = 0
    fc.assert(
      fc.property(world, (node) => {
        const steps = converge(node)
        assert.deepEqual(steps, [], 'still planning')
        assert.deepEqual(node.orphans, [])
        const phases = node.handlers.map(({ phase }) => phase)
        const { desired } = node
        if (desired === undefined) {
          assert.deepEqual([phases, node.routing], [[], undefined])
        } else if (desired.spec !== undefined) {
          assert.deepEqual(
            phases,
            Array.from({ length: desired.replicas }, () => 'serving'),
          )
          assert.ok(node.handlers.every(({ spec, suspect }) => spec === desired.spec && !suspect))
          assert.equal(node.routing, desired.routing)
        }
        converged++
      }),
      { numRuns: 500 },
    )
    assert.ok(converged > 0)
  })

  it('never takes the last sound handler away from a wanted function unless wanted ones serve', () => {
    let taken = 0
    fc.assert(
      fc.property(world, fc.array(wish, { maxLength: 4 }), (node, wishes) => {
        for (const next of [node.desired, ...wishes]) {
          node.desired = next
          for (let round = 0; round < ROUNDS_MAX; round++) {
            const before = sound(node)
            const steps = node.plan()
            const leaving = steps.filter(({ kind }) => kind === 'drain' || kind === 'stop')
            const gone = new Set(leaving.map((step) => ('id' in step ? step.id : '')))
            taken += before.filter(({ id }) => gone.has(id)).length
            const { desired } = node
            if (desired !== undefined && before.length > 0) {
              const left = before.filter(({ id }) => !gone.has(id))
              assert.ok(left.length > 0, JSON.stringify({ node, steps }))
              const old = before.filter(({ id, spec }) => gone.has(id) && spec !== desired.spec)
              const fresh = left.filter(({ spec }) => spec === desired.spec)
              if (old.length > 0) assert.ok(fresh.length >= desired.replicas)
            }
            for (const step of steps) node.apply(step)
            node.finish()
          }
        }
      }),
      { numRuns: 300 },
    )
    assert.ok(taken > 0)
  })

  it('never starts anything but what is wanted, and never more than is wanted', () => {
    let started = 0
    fc.assert(
      fc.property(world, fc.array(wish, { maxLength: 4 }), (node, wishes) => {
        for (const next of [node.desired, ...wishes]) {
          node.desired = next
          for (let round = 0; round < 3; round++) {
            const steps = node.plan()
            const starts = steps.filter(({ kind }) => kind === 'start').length
            started += starts
            for (const step of steps) node.apply(step)
            const { desired } = node
            const opening = node.handlers.filter(
              ({ phase, proven }) => phase === 'starting' && !proven,
            )
            if (desired?.spec !== undefined) {
              // One switch at a time: whatever else was on its way up has been given up.
              assert.ok(
                opening.every(({ spec }) => spec === desired.spec),
                JSON.stringify(node),
              )
              const current = node.handlers.filter(
                ({ spec, phase, suspect }) =>
                  spec === desired.spec &&
                  !suspect &&
                  ['starting', 'ready', 'serving'].includes(phase),
              )
              assert.ok(starts === 0 || current.length <= desired.replicas)
            } else {
              assert.equal(starts, 0)
            }
            if (node.failures > 0) assert.ok(starts <= 1)
            if (round === 1) node.finish()
          }
        }
      }),
      { numRuns: 300 },
    )
    assert.ok(started > 0)
  })

  it('gives each handler at most one step a round, and asks nothing of a lost engine', () => {
    let seen = 0
    fc.assert(
      fc.property(world, fc.boolean(), (node, lost) => {
        node.engine = lost ? 'lost' : 'present'
        const steps = node.plan()
        const ids = steps.flatMap((step) => ('id' in step ? [step.id] : []))
        assert.equal(new Set(ids).size, ids.length, JSON.stringify({ node, steps }))
        if (lost) {
          const engineSteps = new Set(['start', 'stop', 'adopt', 'remove-orphan'])
          assert.ok(steps.every(({ kind }) => !engineSteps.has(kind)))
        }
        assert.deepEqual(node.plan(), steps)
        seen += steps.length
      }),
      { numRuns: 500 },
    )
    assert.ok(seen > 0)
  })
})

function converge(node: World): Step[] {
  let steps = node.plan()
  for (let round = 0; round < ROUNDS_MAX; round++) {
    for (const step of steps) node.apply(step)
    node.finish()
    steps = node.plan().filter(({ kind }) => kind !== 'forget')
  }
  return steps
}

function sound(node: World): readonly ActualHandler[] {
  return node.handlers.filter(({ phase, suspect }) => phase === 'serving' && suspect === undefined)
}
