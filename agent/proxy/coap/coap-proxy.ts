import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Invoker, prepareHead, type PreparedHead, type Result } from '#agent/invoke/index.ts'
import { Fault } from '#shared/fault.ts'
import { faultOf } from '../fault-answer.ts'
import { listenDualStack, listenFault } from '../listen-fault.ts'
import type { ProxyLog } from '../log.ts'
import { requestIdOf } from '../request-id.ts'
import { type Answer, answerFault, answerOf, answerText, CODE } from './answer.ts'
import { Assembler } from './assembler.ts'
import { type Block, blockOption } from './block.ts'
import { TYPE } from './codec.ts'
import { Endpoint, type EndpointStats } from './endpoint.ts'
import type { Exchange } from './exchange.ts'
import type { KnownRun } from './known-options.ts'
import { isEventStream, isInBlocks } from './observation.ts'
import { type LimitOptions, type Limits, limitsOf } from './limits.ts'
import { Observers } from './observers.ts'
import { OPTION } from './options.ts'
import { type Peer, peerKey } from './peer.ts'
import { bodyDigestOf, type CoapRequest, readRequest, transferOf } from './request.ts'
import { fitsWhole, Slicer } from './slicer.ts'
import { WELL_KNOWN_CORE, wellKnownCore } from './well-known.ts'

export interface CoapProxyOptions extends LimitOptions {
  /** `::` is dual-stack. */
  readonly host: string
  /** 0: any free one, see `port`. */
  readonly port: number
  readonly invoker: Invoker
  readonly log: ProxyLog
  /** Several processes listen on the port, and the kernel keeps each peer with one of them; default: no. */
  readonly reusePort?: boolean
  /** A response that takes longer gets an empty ACK first, default 1,000. */
  readonly ackDelayMs?: number
  /** ACK_TIMEOUT of RFC 7252, default 2,000. */
  readonly ackTimeoutMs?: number
  /** Rising, from any start; default `performance.now`. */
  readonly nowMs?: () => number
}

export interface CoapStats extends EndpointStats {
  readonly inFlightBytes: number
  /** Request bodies that are not complete, and answers that are not fetched completely. */
  readonly blockwiseBytes: number
  readonly observers: number
}

/** Unfinished block-wise transfers are kept as long as a message exchange may take (RFC 7252 section 4.8.2). */
const TRANSFER_LIFETIME_MS = 247_000
const SWEEP_MS = 10_000
/** RFC 7252 section 4.8. */
const ACK_TIMEOUT_MS = 2_000
const RETRY_AFTER_MS = 1_000
/** A notification in blocks waits so many times ACK_TIMEOUT for the next block to be fetched. */
const BLOCKS_IDLE_FACTOR = 5
/** It is held as long as the observation goes on; a few large ones would leave no room for anybody's calls. */
const REGISTRATION_BYTES_MAX = 64 * 1024

/**
 * CoAP over UDP in front of the functions: `/<function>[/rest][?query]`, all methods, block-wise both ways.
 *
 * What a request's options become: Uri-Path and Uri-Query the path and query; Content-Format and Accept the header fields `content-type`
 * and `accept`; Uri-Host `host`; ETag and If-None-Match `if-none-match`, If-Match `if-match` (tags as quoted hex digits). Block1,
 * Block2, Size1, Request-Tag, No-Response and Observe (GET) are served here, Uri-Port is ignored, other critical options refused
 * (4.02). An observation follows the event stream that a function answers with (`Observation`). No multicast group is joined.
 */
export class CoapProxy {
  readonly #options: CoapProxyOptions
  readonly #assembler: Assembler
  readonly #slicer: Slicer
  readonly #limits: Limits
  #sweeper: NodeJS.Timeout | undefined
  #endpoint!: Endpoint
  readonly #observers: Observers
  /** Of calls whose options have come before, by these; with the path that is behind the function's name. */
  readonly #heads = new WeakMap<KnownRun, { readonly path: string; readonly head: PreparedHead }>()
  #closing: Promise<void> | undefined
  #inFlightBytes = 0

  private constructor(options: CoapProxyOptions) {
    const { nowMs = () => performance.now() } = options
    const limits = limitsOf(options)
    this.#options = options
    this.#limits = limits
    const { bodyBytesMax, blockwiseBytesMax: bytesMax } = limits
    const kept = { bytesMax, lifetimeMs: TRANSFER_LIFETIME_MS, nowMs }
    this.#assembler = new Assembler({ ...kept, bodyBytesMax })
    this.#slicer = new Slicer(kept)
    this.#observers = new Observers({
      nowMs,
      limits,
      blocksIdleMs: BLOCKS_IDLE_FACTOR * (options.ackTimeoutMs ?? ACK_TIMEOUT_MS),
      sliced: (...args) => this.#sliced(...args),
      respond: (...args) => this.#endpoint.respond(...args),
      respondNothing: (exchange) => this.#endpoint.respondNothing(exchange),
      notify: ({ peer }, ...args) => this.#endpoint.notify(peer, ...args),
      remembers: (...args) => this.#endpoint.remembers(...args),
      failed: (error, requestId) => answerFault(faultOf(error, requestId, options.log)),
    })
  }

  /** @throws Fault `PORT_TAKEN`, `CONFIG_INVALID` */
  static async listen(options: CoapProxyOptions): Promise<CoapProxy> {
    const proxy = new CoapProxy(options)
    const { host, port, log } = options
    const endpointOptions = {
      log,
      reusePort: options.reusePort ?? false,
      onRequest: (exchange: Exchange) => proxy.#onRequest(exchange),
      onReset: (peer: Peer, messageId: number) => proxy.#observers.reset(peer, messageId),
      responseId: (peer: Peer, messageId: number) => proxy.#observers.responseId(peer, messageId),
      nowMs: options.nowMs ?? (() => performance.now()),
      ackDelayMs: options.ackDelayMs ?? 1_000,
      ackTimeoutMs: options.ackTimeoutMs ?? ACK_TIMEOUT_MS,
      dedupEntriesMax: proxy.#limits.dedupEntriesMax,
      dedupBytesMax: proxy.#limits.dedupBytesMax,
    }
    try {
      proxy.#endpoint = await listenDualStack(host, (address) =>
        Endpoint.bind(endpointOptions, address, port),
      )
    } catch (error) {
      throw listenFault(error, { what: 'CoAP', host, port, setting: 'SHOAL_COAP_PORT' })
    }
    proxy.#sweeper = setInterval(() => proxy.#sweep(), SWEEP_MS)
    proxy.#sweeper.unref()
    return proxy
  }

  get port(): number {
    return this.#endpoint.port
  }

  get stats(): CoapStats {
    return {
      ...this.#endpoint.stats,
      inFlightBytes: this.#inFlightBytes,
      blockwiseBytes: this.#assembler.bytes + this.#slicer.bytes,
      observers: this.#observers.size,
    }
  }

  /** Refuses new calls with `SHUTTING_DOWN`, lets those in flight finish for up to `drainMs`, then cancels them. Idempotent. */
  close(drainMs = 0): Promise<void> {
    this.#closing ??= this.#close(drainMs)
    return this.#closing
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #close(drainMs: number): Promise<void> {
    const idle = Promise.all([this.#endpoint.idle(), this.#observers.idle()])
    await Promise.race([idle, sleep(drainMs, undefined, { ref: false })])
    clearInterval(this.#sweeper)
    this.#observers.stop(stopping(), answerFault(stopping()))
    await this.#endpoint.close(answerFault(stopping()))
  }

  #sweep(): void {
    this.#assembler.sweep()
    this.#slicer.sweep()
    this.#endpoint.sweep()
    this.#observers.sweep()
  }

  #onRequest(exchange: Exchange): void {
    const request = readRequest(exchange.message)
    if ('refused' in request) {
      // A message that is not confirmable and has a bad option is rejected as a whole (RFC 7252 section 5.4.1).
      if (request.badOption && exchange.message.type === TYPE.non) this.#endpoint.reject(exchange)
      else this.#endpoint.respond(exchange, answerText(request.refused, request.text))
      return
    }
    const requestId = requestIdOf(undefined)
    try {
      const target = this.#options.invoker.match(request.path)
      const now = this.#serveNow(exchange, request, target !== undefined)
      if (!Buffer.isBuffer(now)) this.#answer(exchange, request, now)
      else if (target !== undefined) this.#call(exchange, request, target, now, requestId)
    } catch (error) {
      this.#fail(exchange, request, requestId, error)
    }
  }

  /** What can be answered without a function, or the body for it. */
  #serveNow(exchange: Exchange, request: CoapRequest, known: boolean): Answer | Buffer {
    const { payload } = exchange.message
    const { block1, block2, size1 = 0 } = request
    if (this.#closing !== undefined) throw stopping()
    if (block2 !== undefined && block2.num > 0) {
      // What a FETCH asks for is in its payload, with each block (RFC 8132 section 2.3.2); many clients leave it out all the same.
      const digest = bodyDigestOf(request, payload)
      const later = payload.length === 0 || digest !== undefined
      if (later) return this.#nextBlock(exchange, request, block2, digest)
    }
    const observed = request.observe === undefined ? undefined : this.#observed(exchange, request)
    if (observed !== undefined) return observed
    if (request.path === WELL_KNOWN_CORE) {
      const { method, query } = request
      const links = wellKnownCore(method, query, this.#options.invoker.names())
      return this.#sliced(exchange, request, links)
    }
    if (!known) throw new Fault('FUNCTION_UNKNOWN', `no function answers at /${request.path}`)
    if (this.#endpoint.inFlight > this.#limits.inFlightMax) throw busy('calls')
    if (this.#inFlightBytes + payload.length > this.#limits.inFlightBytesMax) throw busy('bytes')
    if (block1 !== undefined) {
      const transfer = transferOf(request)
      return this.#assembler.add(peerKey(exchange.peer), transfer, block1, size1, payload)
    }
    const { bodyBytesMax } = this.#limits
    if (payload.length > bodyBytesMax) {
      throw new Fault('BODY_TOO_LARGE', `the body is larger than ${bodyBytesMax} bytes`, {
        bytesMax: bodyBytesMax,
      })
    }
    return payload
  }

  #nextBlock(
    { peer }: Exchange,
    request: CoapRequest,
    asked: Block,
    digest: string | undefined,
  ): Answer {
    const transfer = transferOf(request)
    const answer = this.#slicer.next(peerKey(peer), { transfer, digest }, asked)
    if (answer.code === CODE.content) this.#observers.fetched(peer, transfer, isInBlocks(answer))
    return answer
  }

  /** A registration that there is already, or the end of one: the newest event answers both. Is it gone, the function is asked. */
  #observed(exchange: Exchange, request: CoapRequest): Answer | undefined {
    const observation = this.#observers.find(exchange)
    if (observation === undefined) return undefined
    const { last } = observation
    if (request.observe === 1) {
      observation.leave(new Fault('CALLER_GONE', 'the observer has left'))
      // Nobody may wait for a whole stream of events who has just left one.
      if (last === undefined) return answerText(CODE.unavailable, 'the newest event has gone')
      return this.#sliced(exchange, request, last)
    }
    const known = request.observe === 0 && observation.begun && last !== undefined
    if (!known || observation.transfer !== transferOf(request)) return undefined
    return this.#sliced(exchange, request, observation.renew(last))
  }

  #call(
    exchange: Exchange,
    request: CoapRequest,
    target: { readonly fn: string; readonly rest: string },
    body: Buffer,
    requestId: string,
  ): void {
    const { method, query, headers, accept } = request
    const { invoker } = this.#options
    const { bodyBytesMax } = this.#limits
    if (request.observe === 0 && body.length > REGISTRATION_BYTES_MAX) {
      const message = `the body of a registration is larger than ${REGISTRATION_BYTES_MAX} bytes`
      throw new Fault('BODY_TOO_LARGE', message, { bytesMax: REGISTRATION_BYTES_MAX })
    }
    const head = this.#headOf(exchange.message.known, request, target.rest)
    this.#inFlightBytes += body.length
    const observation = request.observe === 0 ? this.#observers.open(exchange, request) : undefined
    const failed = (error: unknown): void => {
      this.#inFlightBytes -= body.length
      observation?.dismiss()
      this.#fail(exchange, request, requestId, error)
    }
    const answered = (whole: Answer): void => {
      this.#inFlightBytes -= body.length
      observation?.dismiss()
      this.#answer(exchange, request, this.#sliced(exchange, request, whole))
    }
    const onResult = (result: Result): void => {
      let whole: Answer | Promise<Answer>
      try {
        if (observation !== undefined && isEventStream(result)) {
          // The call keeps its body as long as its answer goes on.
          const over = this.#observers.follow(observation, result, requestId)
          void over.then(() => (this.#inFlightBytes -= body.length))
          return
        }
        whole = answerOf(result, method, accept, bodyBytesMax)
      } catch (error) {
        failed(error)
        return
      }
      if (whole instanceof Promise) whole.then(answered, failed)
      else answered(whole)
    }
    const call = {
      fn: target.fn,
      method,
      path: target.rest,
      query,
      headers,
      body,
      protocol: 'coap',
      requestId,
      deadlineMs: undefined,
      head,
    } as const
    invoker.start(call, exchange.caller, onResult, failed)
  }

  #headOf(
    known: KnownRun | undefined,
    { method, query, headers }: CoapRequest,
    path: string,
  ): PreparedHead | undefined {
    if (known === undefined) return undefined
    const before = this.#heads.get(known)
    if (before?.path === path) return before.head
    const head = prepareHead({ method, path, query, headers, protocol: 'coap' })
    this.#heads.set(known, { path, head })
    return head
  }

  #sliced({ peer, message }: Exchange, request: CoapRequest, answer: Answer): Answer {
    const { block2 } = request
    if (fitsWhole(answer, block2)) return answer
    const named = { transfer: transferOf(request), digest: bodyDigestOf(request, message.payload) }
    return this.#slicer.first(peerKey(peer), named, answer, block2)
  }

  #fail(exchange: Exchange, request: CoapRequest, requestId: string, error: unknown): void {
    const fault = faultOf(error, requestId, this.#options.log)
    this.#answer(exchange, request, answerFault(fault))
  }

  #answer(exchange: Exchange, request: CoapRequest, answer: Answer): void {
    if (exchange.caller.aborted) return this.#endpoint.respondNothing(exchange)
    // RFC 7967: a bit per class, 2 for 2.xx, 8 for 4.xx, 16 for 5.xx.
    if ((request.noResponse >> ((answer.code >> 5) - 1)) & 1) {
      return this.#endpoint.respondNothing(exchange)
    }
    const { block1 } = request
    if (block1 === undefined || answer.options.some(({ number }) => number === OPTION.block1)) {
      this.#endpoint.respond(exchange, answer)
      return
    }
    const options = [...answer.options, blockOption(OPTION.block1, { ...block1, more: false })]
    this.#endpoint.respond(exchange, { ...answer, options })
  }
}

function stopping(): Fault {
  return new Fault('SHUTTING_DOWN', 'this node is stopping')
}

function busy(what: string): Fault {
  return new Fault('FUNCTION_SATURATED', `this node has too many ${what} over CoAP in flight`, {
    retryAfterMs: RETRY_AFTER_MS,
  })
}
