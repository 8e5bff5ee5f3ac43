/**
 * Loaded before each test file by `npm test`: what a file reports reaches the runner whole. `--test-force-exit` ends a file's process while the end
 * of its report may still wait for room in the pipe, and the runner then counts tests that it never heard of as none at all.
 */
const handle: unknown = Reflect.get(process.stdout, '_handle')
if (process.env['NODE_TEST_CONTEXT'] === 'child-v8' && canBlock(handle)) handle.setBlocking(true)

function canBlock(value: unknown): value is { setBlocking(on: boolean): void } {
  return typeof value === 'object' && value !== null && 'setBlocking' in value
}
