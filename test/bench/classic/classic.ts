import { join } from 'node:path'
import { eventually } from '#test/eventually.ts'
import { dockerScope } from '#test/docker.ts'
import { testImages } from '#test/images.ts'
import { childScope } from '#test/process.ts'

const HERE = import.meta.dirname
const ROOT = join(HERE, '../../..')

export type ClassicKind = 'express' | 'python' | 'fork'

const COMMANDS: Readonly<
  Record<ClassicKind, { readonly runtime: 'nodejs' | 'python3'; readonly argv: readonly string[] }>
> = {
  express: { runtime: 'nodejs', argv: ['node', '/bench/test/bench/classic/express.mjs'] },
  python: { runtime: 'python3', argv: ['python3', '/bench/test/bench/classic/server.py'] },
  fork: { runtime: 'nodejs', argv: ['node', '/bench/test/bench/classic/fork.mjs'] },
}

/** How functions are usually called: a proxy process, and HTTP over the bridge to a server in a container. */
export interface Classic extends AsyncDisposable {
  /** Of the proxy. */
  readonly port: number
}

/** Starts both, from our own runtime images. */
export async function classic(kind: ClassicKind): Promise<Classic> {
  const { runtime, argv } = COMMANDS[kind]
  const image = testImages().docker?.[runtime]?.run
  if (image === undefined)
    throw new Error(`no image for ${runtime}: node deploy/start.mjs bootstrap`)
  await using stack = new AsyncDisposableStack()
  const { docker, labels } = stack.use(dockerScope())
  const container = await docker.createContainer({
    Image: image,
    Entrypoint: [...argv],
    Labels: { ...labels },
    HostConfig: { Binds: [`${ROOT}:/bench:ro`], NetworkMode: 'bridge' },
  })
  await container.start()
  const { NetworkSettings } = await container.inspect()
  const host = NetworkSettings.Networks['bridge']?.IPAddress ?? ''
  const proxy = stack.use(await childScope({ script: join(HERE, 'proxy.ts'), args: [host] }))
  const { port }: { port: number } = JSON.parse(proxy.readyLine)
  await eventually(async () => {
    const answer = await fetch(`http://127.0.0.1:${port}/`, { method: 'POST', body: 'x' })
    return (await answer.text()) === 'x'
  })
  const owned = stack.move()
  return { port, [Symbol.asyncDispose]: () => owned.disposeAsync() }
}
