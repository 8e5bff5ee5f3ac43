import { createWriteStream } from 'node:fs'
import http, { type IncomingMessage } from 'node:http'
import https from 'node:https'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import tls from 'node:tls'
import { Fault } from '#shared/fault.ts'
import { timeLimit } from '#shared/time-limit.ts'

export interface ProxySettings {
  readonly http?: string | undefined
  readonly https?: string | undefined
  /** Hosts that are reached directly, as in NO_PROXY. */
  readonly no?: string | undefined
}

export interface DownloadOptions {
  readonly bytesMax: number
  readonly timeoutMs: number
  readonly redirectsMax: number
  /** Certificates (PEM) trusted beside the built-in ones. */
  readonly ca?: string | undefined
  readonly proxy?: ProxySettings | undefined
}

/** Downloads a URL into a file. @throws Fault `BUNDLE_INVALID`, saying what the other side answered */
export async function download(
  url: string,
  file: string,
  options: DownloadOptions,
  signal: AbortSignal,
): Promise<void> {
  const timeout = timeLimit(options.timeoutMs)
  const both = AbortSignal.any([signal, timeout])
  try {
    const answer = await fetchFollowing(url, options, both)
    await saveStream(answer, file, options.bytesMax, `download of ${shownUrl(url)}`, both)
  } catch (error) {
    if (signal.aborted || error instanceof Fault) throw error
    const why = timeout.aborted
      ? `took longer than ${options.timeoutMs / 1000} s`
      : error instanceof Error
        ? error.message
        : String(error)
    throw new Fault(
      'BUNDLE_INVALID',
      `download of ${shownUrl(url)} failed: ${why}`,
      {},
      { cause: error },
    )
  }
}

/** Writes a stream to a file. @throws Fault `BUNDLE_INVALID` when it is larger than `bytesMax` */
export async function saveStream(
  stream: Readable,
  file: string,
  bytesMax: number,
  what: string,
  signal: AbortSignal,
): Promise<void> {
  let bytes = 0
  await pipeline(
    stream,
    async function* limit(chunks: AsyncIterable<Buffer>) {
      for await (const chunk of chunks) {
        bytes += chunk.length
        if (bytes > bytesMax) {
          throw new Fault(
            'BUNDLE_INVALID',
            `${what} is larger than ${bytesMax / 1024 / 1024} MiB: leave out what the function does not need (.shoalignore)`,
          )
        }
        yield chunk
      }
    },
    createWriteStream(file),
    { signal },
  )
}

async function fetchFollowing(
  url: string,
  options: DownloadOptions,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  let at = url
  for (let redirects = 0; redirects <= options.redirectsMax; redirects += 1) {
    const target = parseUrl(at)
    const answer = await get(target, options, signal)
    const status = answer.statusCode ?? 0
    if (status >= 200 && status < 300) return answer
    answer.destroy()
    const { location } = answer.headers
    if (status < 300 || status >= 400 || location === undefined) {
      throw new Fault('BUNDLE_INVALID', `${shownUrl(at)} answered ${status}: check the URL`, {
        status,
      })
    }
    at = new URL(location, target).href
  }
  throw new Fault(
    'BUNDLE_INVALID',
    `${shownUrl(url)} redirects more than ${options.redirectsMax} times`,
  )
}

function parseUrl(text: string): URL {
  const url = URL.parse(text)
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new Fault(
      'BUNDLE_INVALID',
      `"${text.slice(0, 200)}" is not a URL that starts with http:// or https://`,
    )
  }
  return url
}

function get(url: URL, options: DownloadOptions, signal: AbortSignal): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
  const proxyEnv = {
    HTTP_PROXY: options.proxy?.http,
    HTTPS_PROXY: options.proxy?.https,
    NO_PROXY: options.proxy?.no,
  }
  const headers = { 'user-agent': 'shoal', accept: '*/*' }
  const request =
    url.protocol === 'https:'
      ? https.get(url, {
          agent: new https.Agent({ proxyEnv }),
          ...(options.ca === undefined ? {} : { ca: [...tls.rootCertificates, options.ca] }),
          headers,
          signal,
        })
      : http.get(url, { agent: new http.Agent({ proxyEnv }), headers, signal })
  request.on('response', resolve).on('error', reject)
  return promise
}

/** Without credentials and query, which may be secrets: this goes into messages. */
function shownUrl(text: string): string {
  const url = URL.parse(text)
  return url === null ? text.slice(0, 200) : `${url.origin}${url.pathname}`
}
