import type { BodySender } from './body-sender.ts'
import type { ResponseBody } from './response-body.ts'
import type { LinkCall } from './types.ts'

export type SlotState = 'idle' | 'sent' | 'answering'

/** Holder of a slot that no call has. */
export const NO_CALL: LinkCall = {
  invocation: {
    fn: '',
    method: '',
    path: '',
    query: '',
    headers: [],
    body: Buffer.alloc(0),
    protocol: 'http',
    requestId: '',
    deadlineMs: undefined,
  },
  bodyBytesMax: 0,
  slot: 0,
  answered() {},
  failed() {},
  dropped() {},
  released() {},
}

/** All that is kept of one call id; used again by the id's next call. */
export class Slot {
  readonly id: number
  state: SlotState = 'idle'
  call: LinkCall = NO_CALL
  /** CANCEL has been sent; what still comes is dropped. */
  cancelled = false
  /** Our side of the body has ended (END or CANCEL). */
  sentEnd = true
  sender: BodySender | undefined
  body: ResponseBody | undefined
  /** Body bytes of the answer so far, and granted to the runner in all. */
  receivedBytes = 0
  grantedBytes = 0
  /** Kept until the next call takes the id: a function's last lines may come after its answer. */
  request: string | undefined

  constructor(id: number) {
    this.id = id
  }
}
