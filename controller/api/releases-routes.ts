import { Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { FastifyPluginCallbackTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type, type Static } from 'typebox'
import { Value } from 'typebox/value'
import { Fault } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import { ReleaseLine } from '#shared/schemas/api.ts'
import { Arch, Runtime } from '#shared/schemas/names.ts'
import type { Source } from '../catalogue/index.ts'
import { selectNodes } from '../fleet/index.ts'
import type { NodeRow } from '../store/index.ts'
import { FunctionParams } from './functions-routes.ts'
import { answerSignal, NDJSON, sendLines } from './ndjson.ts'
import type { ApiServices, RouteOptions } from './services.ts'

/** Archives by content type. The builder looks at the first bytes; the type is a hint. */
const ARCHIVES = {
  'application/x-tar': 'tar',
  'application/gzip': 'tar.gz',
  'application/x-gzip': 'tar.gz',
  'application/zip': 'zip',
  'application/x-zip-compressed': 'zip',
  'application/octet-stream': 'tar',
} as const
/** What is left of an upload that was refused is read this long, so that the client sees the answer. */
const LINGER_MS = 2_000

const UrlSource = Type.Object(
  {
    url: Type.String({ pattern: '^https?://', maxLength: 2_048 }),
    subfolder: Type.Optional(Type.String({ maxLength: 1_024 })),
  },
  { additionalProperties: false },
)
const ReleaseQuery = Type.Object({
  runtime: Type.Optional(Runtime),
  arch: Type.Optional({
    ...Arch,
    description: 'Default: that of the nodes when they have but one, else of this host',
  } as typeof Arch),
  selector: Type.Optional(
    Type.String({
      maxLength: 1_024,
      description:
        'Nodes that it is for: decides the default of `arch`, and is refused before anything is built when no node matches',
    }),
  ),
})

/** Uploads: source in, lines of the build out, then the release. */
export const releasesRoutes: FastifyPluginCallbackTypebox<RouteOptions> = (
  app,
  { services, stopping },
  done,
) => {
  app.addContentTypeParser(Object.keys(ARCHIVES), (_request, payload, parsed) =>
    parsed(null, payload),
  )
  app.post(
    '/v1/functions/:name/releases',
    {
      schema: {
        summary: 'Build a source into a release',
        description:
          'Body: a tar, tar.gz or zip archive, or JSON {url, subfolder?}. A source that is no function (a broken archive, no runtime found) is answered with its error, 400 and so on. Once a build has something to say the answer is 200, with one JSON text per line: `{type: "log"}` lines of its output, and a last line that tells how it ended, `{type: "release"}` or `{type: "error"}`. An answer without such a last line was cut off.',
        consumes: [...Object.keys(ARCHIVES), 'application/json'],
        produces: [NDJSON],
        params: FunctionParams,
        querystring: ReleaseQuery,
        response: { 200: ReleaseLine },
      },
    },
    async (request, reply) => {
      const { params, query } = request
      const source = sourceOf(request)
      const signal = answerSignal(reply, stopping)
      lingerAfter(request, reply)
      const nodes = await nodesFor(services(), query.selector)
      const arch = query.arch ?? defaultArch(nodes, services().hostArch)
      const lines = new LineFeed()
      const { catalogue } = services()
      const options = { runtime: query.runtime, arch }
      const built = catalogue.deploy(
        params.name,
        source,
        options,
        (line) => lines.push(line),
        signal,
      )
      // What fails before there was a word of the build has a status of its own.
      await Promise.race([lines.first, built])
      return sendLines(reply, lines.until(toLine(built, request)))
    },
  )
  done()
}

/** The last line: the release, or what went wrong. */
async function toLine(
  built: ReturnType<ApiServices['catalogue']['deploy']>,
  request: FastifyRequest,
): Promise<ReleaseLine> {
  try {
    return { type: 'release', ...(await built) }
  } catch (error) {
    const fault = Fault.from(error)
    const { code, details } = fault
    if (code === 'INTERNAL') request.log.error({ err: error }, 'build failed unexpectedly')
    const message = code === 'INTERNAL' ? 'internal error' : fault.message
    const lines = details['lines']
    return {
      type: 'error',
      code,
      message,
      ...(Array.isArray(lines) ? { lines: lines.map(String) } : {}),
    }
  }
}

function sourceOf(request: FastifyRequest): Source {
  const type = (request.headers['content-type'] ?? '').split(';')[0]?.trim().toLowerCase() ?? ''
  if (isArchive(type) && request.body instanceof Readable) {
    const bytes = Number(request.headers['content-length'] ?? 0)
    if (bytes > LIMITS.sourceBytesMax) throw tooLarge()
    const body = limited(request.body)
    return { kind: 'stream', type: ARCHIVES[type], body }
  }
  const body: unknown = request.body
  if (Value.Check(UrlSource, body))
    return { kind: 'url', ...(body satisfies Static<typeof UrlSource>) }
  const problem = Value.Errors(UrlSource, body)[0]
  throw new Fault(
    'REQUEST_INVALID',
    `body${(problem?.instancePath ?? '').replaceAll('/', '.')} ${problem?.message ?? ''}: send an archive (${Object.keys(ARCHIVES).join(', ')}) or JSON {url, subfolder?}`,
    { field: 'body' },
  )
}

function isArchive(type: string): type is keyof typeof ARCHIVES {
  return Object.hasOwn(ARCHIVES, type)
}

/** The body, cut off with `BODY_TOO_LARGE` when it is longer than a source may be. */
function limited(body: Readable): Readable {
  let bytes = 0
  const counter = new Transform({
    transform(chunk: Buffer, _encoding, next) {
      bytes += chunk.length
      if (bytes > LIMITS.sourceBytesMax) next(tooLarge())
      else next(null, chunk)
    },
  })
  // Its error is the reader's, who gets it from the counter.
  pipeline(body, counter, { end: true }).catch(() => undefined)
  return counter
}

function tooLarge(): Fault {
  return new Fault(
    'BODY_TOO_LARGE',
    `a source has at most ${LIMITS.sourceBytesMax} bytes; leave out what is installed or built`,
    { bytesMax: LIMITS.sourceBytesMax },
  )
}

/** An upload that nobody reads any more must not hold the connection for ever. */
function lingerAfter(request: FastifyRequest, reply: FastifyReply): void {
  reply.raw.once('finish', () => {
    if (request.raw.complete) return
    request.raw.resume()
    const timer = setTimeout(() => request.raw.destroy(), LINGER_MS)
    timer.unref()
    request.raw.once('close', () => clearTimeout(timer))
  })
}

/** @throws Fault `REQUEST_INVALID` for a selector that is none, `NO_NODE_SELECTED` */
async function nodesFor(
  { store }: ApiServices,
  selectorText: string | undefined,
): Promise<readonly NodeRow[]> {
  const nodes = await store.nodes()
  return selectorText === undefined ? nodes : selectNodes(nodes, selectorText)
}

function defaultArch(nodes: readonly NodeRow[], hostArch: Arch): Arch {
  const archs = new Set(nodes.map(({ arch }) => arch))
  const [first] = archs
  return archs.size === 1 && first !== undefined ? first : hostArch
}

/** Lines that come by callback, as an async iterable. The builder bounds how many there are. */
class LineFeed {
  #lines: string[] = []
  #wake: (() => void) | undefined
  readonly #first = Promise.withResolvers<void>()

  /** Resolves when there is a line. */
  get first(): Promise<void> {
    return this.#first.promise
  }

  push(line: string): void {
    this.#lines.push(line)
    this.#first.resolve()
    this.#wake?.()
  }

  async *until(last: Promise<ReleaseLine>): AsyncGenerator<ReleaseLine> {
    let ended: ReleaseLine | undefined
    const awaitLast = async () => {
      ended = await last
      this.#wake?.()
    }
    void awaitLast()
    for (;;) {
      const lines = this.#lines
      this.#lines = []
      for (const line of lines) yield { type: 'log', line }
      if (this.#lines.length > 0) continue
      if (ended !== undefined) break
      const woken = Promise.withResolvers<void>()
      this.#wake = woken.resolve
      await woken.promise
      this.#wake = undefined
    }
    yield ended
  }
}
