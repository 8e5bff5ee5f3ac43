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
  giveUp: string[] = []
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
    const { engine } = this
    const orphans = this.orphans.map((id) => ({ id }))
    return { engine, functions, orphans, giveUp: new Set(this.giveUp) }
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
          spec: (isFallback(step) ? this.desired?.fallback?.spec : this.desired?.spec) ?? '',
          phase: 'starting',
          proven: isFallback(step),
          memoryMiB: 1,
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
      case 'pause':
        assert.ok(one?.phase === 'drained' && one.pausable, 'only what has no calls is paused')
        one.phase = 'pausing'
        break
      case 'resume':
        assert.ok(one?.phase === 'paused' || (one?.phase === 'drained' && one.pausable))
        one.phase = 'starting'
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
      if (one.phase === 'draining') Object.assign(one, { phase: 'drained', pausable: true })
      if (one.phase === 'pausing') Object.assign(one, { phase: 'paused', pausedUntilMs: 1 })
    }
    const { spec } = this.desired ?? {}
    if (this.handlers.some((one) => one.phase === 'serving' && one.spec === spec)) this.failures = 0
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
  'pausing',
  'paused',
  'dead',
  'stopping',
]

const handlers = fc.array(
  fc.record({
    spec: fc.constantFrom('a', 'b', 'c'),
    phase: fc.constantFrom(...PHASES),
    proven: fc.boolean(),
    spent: fc.integer({ min: 0, max: 5 }).map((n) => n === 0),
    pausedUntilMs: fc.constantFrom(0, 1),
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
  fc
    .record({
      fn: fc.constant('f'),
      spec: fc.constantFrom('a', 'b', 'c', undefined),
      replicas: fc.integer({ min: 0, max: 4 }),
      replicasMin: fc.constant(0),
      memoryMiB: fc.constant(1),
      sleeps: fc.boolean(),
      keeps: fc.boolean(),
      fallback: fc.constantFrom(undefined, 'a', 'b'),
      routing: fc.constantFrom('r', 's'),
    })
    .map(({ fallback, ...rest }): Desired => {
      // As in life: nothing falls back to itself.
      if (fallback === undefined || fallback === rest.spec) return rest
      return Object.assign(rest, { fallback: { spec: fallback, retryAtMs: 0 } })
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
    giveUp: fc.subarray(['g0', 'g1', 'g2']),
    handlers,
  })
  .map((start) => {
    const made = new World()
    Object.assign(made, start)
    made.handlers = start.handlers.map(
      ({ suspect, proven, spent, pausedUntilMs, ...one }, index) => ({
        ...one,
        id: `g${index}`,
        memoryMiB: 1,
        // As in life: only what has served is under suspicion, or paused.
        proven: proven || ['found', 'serving', 'pausing', 'paused'].includes(one.phase),
        ...(spent && one.phase === 'serving' ? { spent: true as const } : {}),
        ...(one.phase === 'paused' ? { pausedUntilMs } : {}),
        ...(one.phase === 'drained' && pausedUntilMs === 1 ? { pausable: true as const } : {}),
        ...(suspect === undefined || one.phase !== 'serving' ? {} : { suspect }),
      }),
    )
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
        const { desired } = node
        // Asleep, or kept: at most one of the wanted release, and one of an older one.
        const paused = node.handlers.filter(({ phase }) => phase === 'paused')
        assert.ok(paused.filter(({ spec }) => spec === desired?.spec).length <= 6)
        if (desired?.spec !== undefined) {
          assert.ok(paused.filter(({ spec }) => spec !== desired.spec).length <= 1)
        }
        const gone = paused.filter(
          ({ id, pausedUntilMs }) => node.giveUp.includes(id) || pausedUntilMs === 0,
        )
        assert.deepEqual(gone, [])
        const phases = node.handlers.map(({ phase }) => phase).filter((phase) => phase !== 'paused')
        if (desired === undefined) {
          assert.deepEqual([phases, node.routing], [[], undefined])
        } else if (desired.spec !== undefined) {
          assert.deepEqual(
            phases,
            Array.from({ length: desired.replicas }, () => 'serving'),
          )
          const serving = node.handlers.filter(({ phase }) => phase === 'serving')
          assert.ok(
            serving.every(
              ({ spec, suspect, spent }) => spec === desired.spec && !suspect && !spent,
            ),
          )
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
            if (desired !== undefined && desired.replicas > 0 && before.length > 0) {
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
            const before = sound(node)
            const steps = node.plan()
            const again = steps.filter(isFallback)
            const starts = steps.filter((step) => step.kind === 'start' && !isFallback(step)).length
            started += starts
            // What served before comes back alone, and only in trouble.
            assert.ok(again.length <= (node.failures > 0 ? 1 : 0))
            if (again.length > 0) assert.deepEqual(before, [])
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
                ({ spec, phase, suspect, spent }) =>
                  spec === desired.spec &&
                  !suspect &&
                  !spent &&
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

function isFallback(step: Step): boolean {
  return step.reason === 'fallback'
}

function sound(node: World): readonly ActualHandler[] {
  return node.handlers.filter(
    ({ phase, suspect, spent }) => phase === 'serving' && suspect === undefined && spent !== true,
  )
}
