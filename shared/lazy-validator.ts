import type { Static, TSchema } from 'typebox'
import { Compile, type Validator } from 'typebox/compile'

/** What most need of a compiled schema. */
export interface LazyValidator<T extends TSchema> {
  Check(value: unknown): value is Static<T>
  Errors(value: unknown): ReturnType<Validator['Errors']>
}

/** Like `Compile`, at the first value: for what a program does not read as it starts, which each would hold up by some milliseconds. */
export function lazyValidator<T extends TSchema>(schema: T): LazyValidator<T> {
  let compiled: Validator | undefined
  const validator = (): Validator => (compiled ??= Compile(schema))
  return {
    Check: (value): value is Static<T> => validator().Check(value),
    Errors: (value) => validator().Errors(value),
  }
}
