import type { Socket } from 'node:net'
import { Fault } from '#shared/fault.ts'
import { CANCEL, FRAME, ProtocolError, frameName } from '../frames/index.ts'
import { leanFault } from '../lane/index.ts'
import { CallTable, Connection } from '../link/index.ts'
import type { ConnectionOwner, LinkCall } from '../link/index.ts'
import { matchName } from '../match-name.ts'
import type { CallerListener, CallerSignal, Invocation, Invoker, Result } from '../model.ts'
import { readFaultBytes } from './fault-bytes.ts'
import { NAMES, WINDOW_BYTES } from './format.ts'
import { requestLine } from './request-line.ts'

const DEADLINE_MS_MAX = 0xffff_ffff

/**
 * The agent's router as a worker sees it. Decides nothing by itself but which function a path names: admission, deadlines, limits and
 * faults are the router's.
 */
export class RemoteInvoker implements Invoker, ConnectionOwner {
  /** Called once, when the agent has gone; the calls in flight have been failed then. */
  onLost: (() => void) | undefined
  readonly #calls: CallTable
  readonly #named = Promise.withResolvers<void>()
  #names: readonly string[] = []
  #known: ReadonlySet<string> = new Set()

  constructor(socket: Socket) {
    const { writer } = new Connection(socket, this)
    this.#calls = new CallTable(writer, WINDOW_BYTES, readFaultBytes)
  }

  /** Resolves when the names of the functions are known. */
  get named(): Promise<void> {
    return this.#named.promise
  }

  match(path: string): { readonly fn: string; readonly rest: string } | undefined {
    return matchName(path, this.#known)
  }

  names(): readonly string[] {
    return this.#names
  }

  invoke(invocation: Invocation, signal?: AbortSignal): Promise<Result> {
    return new Promise((resolve, reject) => this.start(invocation, signal, resolve, reject))
  }

  start(
    invocation: Invocation,
    signal: CallerSignal | undefined,
    resolve: (result: Result) => void,
    reject: (fault: Fault) => void,
  ): void {
    if (signal?.aborted === true) return reject(gone(invocation))
    const { fn, method, body, deadlineMs } = invocation
    const sent = { ...invocation, method: requestLine(fn, method, body), head: undefined }
    const call = new RemoteCall(sent, this.#calls, signal, resolve, reject)
    try {
      // Written so that NaN, too, means "no wish".
      const asked =
        deadlineMs !== undefined && deadlineMs < DEADLINE_MS_MAX ? deadlineMs : undefined
      this.#calls.start(call, asked === undefined ? 0 : Math.max(1, Math.ceil(asked)))
    } catch (error) {
      call.failed(Fault.from(error))
    }
  }

  /** The agent answers as soon as it has taken the call: the invocation's protocol is `async`. */
  async accept(invocation: Invocation): Promise<void> {
    await this.invoke({ ...invocation, protocol: 'async' })
  }

  frame(
    type: number,
    flags: number,
    id: number,
    buffer: Buffer,
    start: number,
    end: number,
    owned: boolean,
  ): void {
    switch (type) {
      case FRAME.response:
        return this.#calls.response(flags, id, buffer, start, end, owned)
      case FRAME.data:
        return this.#calls.data(flags, id, buffer, start, end, owned)
      case FRAME.error:
        return this.#calls.error(id, buffer, start, end)
      case FRAME.window:
        return this.#calls.window(id, buffer, start)
      case NAMES:
        return this.#learn(JSON.parse(buffer.toString('utf8', start, end)))
      default:
        throw new ProtocolError(`${frameName(type)} from the agent`)
    }
  }

  ended(): void {
    this.#calls.failAll(new Fault('SHUTTING_DOWN', 'This node is shutting down'))
    this.onLost?.()
  }

  #learn(names: readonly string[]): void {
    this.#names = names
    this.#known = new Set(names)
    this.#named.resolve()
  }
}

/** A call that the agent works on. */
class RemoteCall implements LinkCall, CallerListener {
  readonly invocation: Invocation
  /** The router knows the limit. */
  readonly bodyBytesMax = Number.POSITIVE_INFINITY
  slot = 0
  readonly #calls: CallTable
  readonly #signal: CallerSignal | undefined
  readonly #resolve: (result: Result) => void
  readonly #reject: (fault: Fault) => void
  #told = false

  constructor(
    invocation: Invocation,
    calls: CallTable,
    signal: CallerSignal | undefined,
    resolve: (result: Result) => void,
    reject: (fault: Fault) => void,
  ) {
    this.invocation = invocation
    this.#calls = calls
    this.#signal = signal
    this.#resolve = resolve
    this.#reject = reject
    signal?.addEventListener('abort', this)
  }

  /** The caller has gone. */
  handleEvent(): void {
    const fault = gone(this.invocation)
    this.#calls.cancel(this, CANCEL.callerGone, fault)
    this.failed(fault)
  }

  answered(result: Result): void {
    if (this.#told) return
    this.#told = true
    this.#resolve(result)
  }

  failed(fault: Fault): void {
    this.#forget()
    if (this.#told) return
    this.#told = true
    this.#reject(fault)
  }

  dropped(): void {
    this.#forget()
  }

  released(): void {
    this.#forget()
  }

  #forget(): void {
    this.#signal?.removeEventListener('abort', this)
  }
}

function gone({ fn, requestId }: Invocation): Fault {
  return leanFault('CALLER_GONE', `The caller of ${fn} has gone`, { request: requestId })
}
