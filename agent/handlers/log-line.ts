import type { RunnerLogLine } from '#agent/invoke/index.ts'
import type { LogLine } from '#shared/schemas/health.ts'
import type { HandlerRecord } from './handler-record.ts'

/** A line that a function has written, with where and when. */
export function logLine(
  { fn, release, id }: HandlerRecord,
  atMs: number,
  { level, request, text }: RunnerLogLine,
): LogLine {
  const named = request === undefined ? {} : { request }
  return { atMs, fn, release, handler: id, level, ...named, text }
}
