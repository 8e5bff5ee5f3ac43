import type { Call } from './call.ts'
import { ClassicRequest } from './classic-request.ts'
import { ClassicResponse } from './classic-response.ts'
import { GrowingBody } from './growing-body.ts'
import { isThenable } from './guards.ts'
import { describe, KIND, LIMIT } from './protocol.ts'
import type { WholeBody } from './whole-body.ts'

export type Next = (error?: unknown) => void
export type ClassicFunction = (req: ClassicRequest, res: ClassicResponse, next: Next) => unknown

/** Serves calls by a function of the contract `(req, res)`. */
export function classicCaller(fn: ClassicFunction): (call: Call) => void {
  const invoke = (call: Call, body: WholeBody): void => {
    const req = new ClassicRequest(call, body)
    const res = new ClassicResponse(call, req)
    call.onAbort = res
    call.held = true
    try {
      const result = fn(req, res, (error) => next(call, req, res, error))
      if (isThenable(result)) {
        res.promised = true
        result.then(
          (value) => settled(call, value),
          (error: unknown) => failed(call, error),
        )
      } else if (result instanceof Response) settled(call, result)
    } catch (error) {
      failed(call, error)
    }
  }
  const invokeWhole = (call: Call): void => invoke(call, call.whole ?? '')
  return (call) => {
    if (call.whole !== undefined) call.run(invokeWhole)
    // The last part of a body comes as its call.
    else collect(call, (body) => invoke(call, body), NOT_CALLED)
  }
}

/** A function that waits for its body has not been called: there is nobody to tell that the rest of it will not come. */
const NOT_CALLED = (): void => undefined

/** Puts the parts of a body together and calls `done`, or `lost` with why there is no whole body; one above the limit ends the call. */
export function collect(
  call: Call,
  done: (body: Buffer) => void,
  lost: (error: Error) => void,
): void {
  const body = new GrowingBody(Number(call.header('content-length')))
  call.readInto({
    chunk(part) {
      if (body.length + part.length > LIMIT.bodyBytes) {
        call.fail(KIND.LIMIT, `a request body above ${LIMIT.bodyBytes} bytes`)
        return
      }
      body.append(part)
      call.holds(body.takenBytes)
      call.consumed(part.length)
    },
    end() {
      done(body.take())
    },
    lost(error) {
      body.take()
      lost(error)
    },
  })
}

function next(call: Call, req: ClassicRequest, res: ClassicResponse, error: unknown): void {
  if (error !== undefined && error !== null && error !== 'route') {
    failed(call, error)
    return
  }
  res.status(404).send(`Cannot ${req.method} ${req.path}`)
}

function settled(call: Call, value: unknown): void {
  call.held = false
  if (call.release() || call.started || !(value instanceof Response)) return
  call.fail(
    KIND.BAD_ANSWER,
    "the function returned a Response, but CommonJS modules answer by res: add module.exports.contract = 'native', or use an ES module",
  )
}

function failed(call: Call, error: unknown): void {
  const text = describe(error)
  // Behind the answer nobody can be told but the log.
  if (call.ended) process.stderr.write(`${text}\n`)
  else if (!call.release()) call.fail(KIND.FUNCTION, text)
}
