/**
 * Stands in for what the bundles leave out, and fails when it is used all the same.
 *
 * dockerode brings along ways to use an engine that nothing here goes: over SSH (ssh2, which does not bundle as a module), builds that pack
 * a folder by themselves (tar-fs), and BuildKit sessions (its `session.js`, with a second gRPC and all of protobufjs): half a megabyte of
 * source that each process would keep in memory.
 */
const leftOut: object = new Proxy(() => undefined, {
  apply() {
    throw new TypeError(
      'this part of dockerode is not in the bundle: see deploy/bundle/left-out.ts',
    )
  },
})

export { leftOut as Client, leftOut as pack }
