import { join } from 'node:path'
import { childScope } from '#test/process.ts'
import type { OverloadPlan, OverloadReport } from './report.ts'

/** Callers in a process of their own. Resolves when the last call has ended. */
export async function overloadLoad(plan: OverloadPlan): Promise<OverloadReport> {
  await using child = await childScope({
    script: join(import.meta.dirname, 'callers.ts'),
    args: [JSON.stringify(plan)],
    ready: (line) => line.startsWith('{"inTime"'),
    readyTimeoutMs: plan.durationMs + plan.deadlineMs + 30_000,
  })
  const report: OverloadReport = JSON.parse(child.readyLine)
  return report
}
