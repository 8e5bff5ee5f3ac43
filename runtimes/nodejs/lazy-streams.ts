import { Readable, Writable } from 'node:stream'

type StateName = '_readableState' | '_writableState'

/**
 * A class that is `base` to whoever uses it, and whose constructor does the work of base's at the first use as a stream.
 *
 * Most calls never use theirs. And a `Writable` that is garbage stays, with the body of its call, until V8 looks at its whole memory: its
 * constructor assigns a function literal to a property, which V8 puts among what is old from the start.
 */
function lazily<Base extends typeof Readable | typeof Writable>(
  base: Base,
  stateName: StateName,
): Base {
  // oxlint-disable-next-line consistent-function-scoping -- each class needs one of its own
  const lazy = function (): void {}
  lazy.prototype = Object.create(base.prototype, {
    [stateName]: {
      configurable: true,
      get(this: object): unknown {
        Reflect.apply(base, this, [])
        return Reflect.get(this, stateName)
      },
      set(this: object, value: unknown): void {
        Object.defineProperty(this, stateName, {
          value,
          configurable: true,
          enumerable: true,
          writable: true,
        })
      },
    },
  })
  Object.setPrototypeOf(lazy, base)
  // oxlint-disable-next-line no-unsafe-type-assertion -- it has all that base has
  return lazy as unknown as Base
}

export const LazyReadable = lazily(Readable, '_readableState')
export const LazyWritable = lazily(Writable, '_writableState')

/** It has not been used as a stream yet, except perhaps for listeners of events that every emitter has. */
export function isUnused(stream: Writable): boolean {
  return !Object.hasOwn(stream, '_writableState')
}
