import type { TestEvent } from 'node:test/reporters'

/**
 * A reporter of the test runner.
 *
 * @yields the path of a file with a failed test, a line each time one fails
 */
// oxlint-disable-next-line import/no-default-export -- so the test runner wants it
export default async function* failedFiles(
  events: AsyncIterable<TestEvent>,
): AsyncGenerator<string> {
  for await (const event of events) {
    if (event.type === 'test:fail' && event.data.file !== undefined) yield `${event.data.file}\n`
  }
}
