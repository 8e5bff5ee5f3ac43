import { call, type ReconcileNode } from './reconcile-scope.ts'

export interface Callers {
  /** Ends the loops. What was answered how often, and every failure. */
  end(): Promise<{ readonly answers: ReadonlyMap<string, number>; readonly failures: string[] }>
}

/** Calls in a loop from eight sides until `end`. */
export function callers(node: ReconcileNode, fn: string): Callers {
  const answers = new Map<string, number>()
  const failures: string[] = []
  const ending = new AbortController()
  const run = async (): Promise<void> => {
    while (!ending.signal.aborted) {
      try {
        const answer = await call(node.router, fn)
        answers.set(answer, (answers.get(answer) ?? 0) + 1)
      } catch (error) {
        failures.push(String(error))
      }
    }
  }
  const all = Promise.all(Array.from({ length: 8 }, run))
  return {
    async end() {
      ending.abort()
      await all
      return { answers, failures }
    },
  }
}
