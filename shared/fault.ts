/**
 * Every failure this system can name, with its answer in each protocol the proxy speaks.
 *
 * A code is a contract: clients, dashboards and tests match on it, so a code keeps its meaning for
 * ever and a new meaning gets a new code. `retry` answers the one question every caller has: is the
 * same request worth sending again?
 *
 * CoAP codes: RFC 7252 section 12.1.2, 4.09 from RFC 8132, 4.29 from RFC 8516.
 * gRPC numbers: grpc/doc/statuscodes.md.
 */
export const FAULTS = {
  // What the caller sent.
  REQUEST_INVALID: { http: 400, coap: '4.00', grpc: 3, retry: false },
  UNAUTHENTICATED: { http: 401, coap: '4.01', grpc: 16, retry: false },
  FORBIDDEN: { http: 403, coap: '4.03', grpc: 7, retry: false },
  NOT_FOUND: { http: 404, coap: '4.04', grpc: 5, retry: false },
  FUNCTION_UNKNOWN: { http: 404, coap: '4.04', grpc: 5, retry: false },
  RELEASE_UNKNOWN: { http: 404, coap: '4.04', grpc: 5, retry: false },
  NODE_UNKNOWN: { http: 404, coap: '4.04', grpc: 5, retry: false },
  ROLLOUT_UNKNOWN: { http: 404, coap: '4.04', grpc: 5, retry: false },
  METHOD_NOT_ALLOWED: { http: 405, coap: '4.05', grpc: 12, retry: false },
  CONFLICT: { http: 409, coap: '4.09', grpc: 10, retry: false },
  BODY_TOO_LARGE: { http: 413, coap: '4.13', grpc: 8, retry: false },
  RUNTIME_UNKNOWN: { http: 400, coap: '4.00', grpc: 3, retry: false },
  BUNDLE_INVALID: { http: 400, coap: '4.00', grpc: 3, retry: false },
  BUILD_FAILED: { http: 422, coap: '4.22', grpc: 9, retry: false },
  NO_NODE_SELECTED: { http: 422, coap: '4.22', grpc: 9, retry: false },
  ARCH_MISMATCH: { http: 422, coap: '4.22', grpc: 9, retry: false },

  // What a call met on the node.
  FUNCTION_SATURATED: { http: 429, coap: '4.29', grpc: 8, retry: true },
  CALLER_GONE: { http: 499, coap: '5.00', grpc: 1, retry: false },
  FUNCTION_ERROR: { http: 500, coap: '5.00', grpc: 2, retry: false },
  FUNCTION_BAD_ANSWER: { http: 502, coap: '5.02', grpc: 2, retry: false },
  FUNCTION_OUTPUT_TOO_LARGE: { http: 502, coap: '5.02', grpc: 8, retry: false },
  FUNCTION_EXITED: { http: 502, coap: '5.02', grpc: 14, retry: true },
  FUNCTION_UNAVAILABLE: { http: 503, coap: '5.03', grpc: 14, retry: true },
  SHUTTING_DOWN: { http: 503, coap: '5.03', grpc: 14, retry: true },
  DEADLINE_EXCEEDED: { http: 504, coap: '5.04', grpc: 4, retry: false },
  NODE_OFFLINE: { http: 503, coap: '5.03', grpc: 14, retry: true },
  NODE_TIMEOUT: { http: 504, coap: '5.04', grpc: 4, retry: true },

  // What a node says of a command; these reach the controller as per-node reasons.
  COMMAND_MALFORMED: { http: 400, coap: '4.00', grpc: 3, retry: false },
  COMMAND_SIGNATURE: { http: 401, coap: '4.01', grpc: 16, retry: false },
  COMMAND_KEY_UNKNOWN: { http: 401, coap: '4.01', grpc: 16, retry: false },
  COMMAND_AUDIENCE: { http: 403, coap: '4.03', grpc: 7, retry: false },
  COMMAND_REPLAYED: { http: 409, coap: '4.09', grpc: 9, retry: false },
  COMMAND_EXPIRED: { http: 410, coap: '4.12', grpc: 9, retry: false },
  TRUST_INVALID: { http: 401, coap: '4.01', grpc: 16, retry: false },
  JOIN_REFUSED: { http: 403, coap: '4.03', grpc: 7, retry: false },
  ARTIFACT_DIGEST: { http: 502, coap: '5.02', grpc: 15, retry: false },
  ARTIFACT_UNAVAILABLE: { http: 503, coap: '5.03', grpc: 14, retry: true },
  HANDLER_START: { http: 502, coap: '5.02', grpc: 14, retry: true },
  FUNCTION_LOAD: { http: 502, coap: '5.02', grpc: 9, retry: false },
  CONTAINERS_REQUIRED: { http: 503, coap: '5.03', grpc: 9, retry: false },

  // What is wrong with this installation.
  CONFIG_INVALID: { http: 500, coap: '5.00', grpc: 13, retry: false },
  PORT_TAKEN: { http: 500, coap: '5.00', grpc: 13, retry: false },
  ENGINE_UNAVAILABLE: { http: 503, coap: '5.03', grpc: 14, retry: true },
  IMAGE_MISSING: { http: 503, coap: '5.03', grpc: 14, retry: false },
  CONTROLLER_UNREACHABLE: { http: 503, coap: '5.03', grpc: 14, retry: true },
  STORAGE: { http: 507, coap: '5.00', grpc: 8, retry: true },
  INTERNAL: { http: 500, coap: '5.00', grpc: 13, retry: false },
} as const satisfies Record<string, FaultAnswer>

interface FaultAnswer {
  /** HTTP status. */
  readonly http: number
  /** CoAP code in dotted form. */
  readonly coap: string
  /** gRPC status number. */
  readonly grpc: number
  readonly retry: boolean
}

export type FaultCode = keyof typeof FAULTS

/** What a fault carries besides its message: the keys are what an operator greps for. */
export type FaultDetails = Readonly<
  Record<string, string | number | boolean | readonly string[] | undefined>
>

/** An expected failure with a code of the table above. */
export class Fault extends Error {
  static {
    // Logs show the class' name, and a bundler renames a class that mentions itself.
    Object.defineProperty(this, 'name', { value: 'Fault' })
  }

  override readonly name = 'Fault'
  readonly code: FaultCode
  readonly details: FaultDetails

  constructor(
    code: FaultCode,
    message: string,
    details: FaultDetails = {},
    options?: ErrorOptions,
  ) {
    super(message, options)
    this.code = code
    this.details = details
  }

  /** True when `error` is a fault, and of this code when one is named. */
  static is(error: unknown, code?: FaultCode): error is Fault {
    return error instanceof Fault && (code === undefined || error.code === code)
  }

  /** Any thrown value as a fault; what is not one becomes `INTERNAL` with the value as its cause. */
  static from(error: unknown): Fault {
    if (error instanceof Fault) return error
    const message = error instanceof Error ? error.message : String(error)
    return new Fault('INTERNAL', message, {}, { cause: error })
  }
}

/** True when `code` is a key of the table: for codes that came over the wire. */
export function isFaultCode(code: string): code is FaultCode {
  return Object.hasOwn(FAULTS, code)
}
