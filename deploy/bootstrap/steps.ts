import { formatSeconds, type Output } from '../output.ts'

/** One thing that must be on this machine. A table of these is the whole set-up. */
export interface Step {
  readonly name: string
  /** What is there already (shown), or undefined. Must be quick: it runs at every start. */
  present(signal: AbortSignal): Promise<string | undefined>
  /** Makes it so; resolves to what was done. Only called when `present` found nothing. */
  install(signal: AbortSignal): Promise<string>
  /** The command, for people, when `install` cannot. */
  readonly hint: string
}

export type Outcome =
  | { readonly state: 'ok' | 'done'; readonly detail: string }
  | { readonly state: 'fail'; readonly detail: string; readonly hint: string }

/** Does one step and prints a line about it. A failure is an outcome: the caller knows whether the rest can go on. */
export async function runStep(step: Step, out: Output, signal: AbortSignal): Promise<Outcome> {
  const startedAtMs = performance.now()
  const line = (word: string, detail: string): void => {
    out.line(`[${word}] ${step.name} (${formatSeconds(performance.now() - startedAtMs)}) ${detail}`)
  }
  try {
    const there = await step.present(signal)
    if (there !== undefined) {
      line(' ok ', there)
      return { state: 'ok', detail: there }
    }
    out.line(`[ .. ] ${step.name}`)
    const detail = await step.install(signal)
    line('done', detail)
    return { state: 'done', detail }
  } catch (error) {
    signal.throwIfAborted()
    const detail = error instanceof Error ? error.message : String(error)
    line('fail', detail)
    out.line(`       ${step.hint}`)
    return { state: 'fail', detail, hint: step.hint }
  }
}

/** Says that a step does not apply, and why. */
export function skipStep(name: string, why: string, out: Output): void {
  out.line(`[skip] ${name}: ${why}`)
}
