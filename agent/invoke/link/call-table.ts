import { Fault } from '#shared/fault.ts'
import {
  CANCEL,
  END,
  FRAME_LIMITS,
  PREPARED_ID_BYTES,
  ProtocolError,
  headBytes,
  requestHead,
  u16At,
  u32At,
} from '../frames/index.ts'
import type { CancelReason, FrameWriter } from '../frames/index.ts'
import { BufferSender, StreamSender } from './body-sender.ts'
import { HeadCache } from './head-cache.ts'
import { ResponseBody } from './response-body.ts'
import type { BodyFeed } from './response-body.ts'
import { NO_CALL, Slot } from './slot.ts'
import type { LinkCall } from './types.ts'
import { errorFault } from './error-fault.ts'
import { keep } from './keep.ts'

/**
 * The calls in flight on one connection, by id.
 *
 *     idle --start--> sent --RESPONSE END--> idle
 *                      |  \--RESPONSE--> answering --DATA END, ERROR--> idle
 *                      \--ERROR--> idle
 *
 * `cancelled` is a flag beside the state: the runner still has to end its side. Ids and their slots are used again, so the
 * table is as large as the most calls that were ever in flight at once, and a call leaves nothing behind.
 */
export class CallTable implements BodyFeed {
  readonly #writer: FrameWriter
  readonly #windowBytes: number
  /** By id; 0 is no call's. */
  readonly #slots: Slot[] = [new Slot(0)]
  readonly #free: Slot[] = []
  readonly #heads = new HeadCache()
  readonly #readFault: ReadFault
  /** Answers that no call waits for. */
  #strays = 0

  /** @param readFault - what an ERROR frame's payload says */
  constructor(writer: FrameWriter, windowBytes: number, readFault: ReadFault = errorFault) {
    this.#writer = writer
    this.#windowBytes = windowBytes
    this.#readFault = readFault
  }

  /** Calls the runner has not ended. */
  get inFlight(): number {
    return this.#slots.length - 1 - this.#free.length
  }

  /**
   * Sends a call.
   *
   * @param deadlineMs - what is left, at least 1
   * @throws Fault `REQUEST_INVALID`, `BODY_TOO_LARGE`; nothing was sent then, and none of the call's methods is called
   */
  start(call: LinkCall, deadlineMs: number): void {
    const { body, head: prepared, lease, requestId } = call.invocation
    const whole = Buffer.isBuffer(body)
    if (whole && body.length > call.bodyBytesMax) throw bodyTooLarge(call.bodyBytesMax)
    const quick = prepared !== undefined && lease === undefined
    if (quick && whole && this.#fits(body, requestId)) {
      const { id } = this.#take(call)
      return this.#writer.preparedRequest(id, deadlineMs, prepared, requestId, body)
    }
    const head = requestHead(call.invocation)
    const bytes = headBytes(head)

    const slot = this.#take(call)
    if (whole) {
      const inline = Math.min(body.length, this.#windowBytes)
      const last = inline === body.length
      const flags = last ? END : 0
      const written = lease?.send()
      this.#writer.request(slot.id, flags, deadlineMs, head, bytes, body, inline, written)
      slot.sentEnd = last
      if (last) return
      slot.sender = new BufferSender(
        this.#writer,
        slot.id,
        body,
        inline,
        this.#windowBytes,
        this.#hooks(slot),
      )
      return
    }
    this.#writer.request(slot.id, 0, deadlineMs, head, bytes, NO_BYTES, 0)
    const sender = new StreamSender(
      this.#writer,
      slot.id,
      body,
      this.#windowBytes,
      call.bodyBytesMax,
      this.#hooks(slot),
    )
    slot.sentEnd = false
    slot.sender = sender
    sender.start()
  }

  /** Asks the runner to stop; a body that is being read breaks with the fault. A call that is not in flight is left alone. */
  cancel(call: LinkCall, reason: CancelReason, fault: Fault): void {
    const slot = this.#slots[call.slot]
    if (slot?.call !== call || slot.cancelled) return
    this.#cancel(slot, reason)
    const body = slot.body
    slot.body = undefined
    body?.break(fault)
  }

  /** Request id of the call that has the id now, or had it last. */
  requestOf(id: number): string | undefined {
    return this.#slots[id]?.request
  }

  /** The connection is over: every call ends with the fault. */
  failAll(fault: Fault): void {
    for (const slot of this.#slots) {
      if (slot.state !== 'idle') this.#fail(slot, fault, true)
    }
  }

  response(
    flags: number,
    id: number,
    buffer: Buffer,
    start: number,
    end: number,
    owned: boolean,
  ): void {
    const slot = this.#inFlight(id)
    if (slot === undefined) return
    if (slot.state === 'answering') {
      throw new ProtocolError(`RESPONSE for call ${id}, which has had its answer`)
    }
    const status = u16At(buffer, start)
    const head = start + 4
    const bodyStart = head + u16At(buffer, start + 2)
    if (bodyStart > end) throw new ProtocolError(`RESPONSE for call ${id} is shorter than its head`)
    if (status < 200 || status > 599) throw new ProtocolError(`RESPONSE with status ${status}`)
    const headers = this.#heads.read(buffer, head, bodyStart)
    slot.state = 'answering'
    this.#receive(slot, end - bodyStart)
    const last = (flags & END) !== 0
    if (slot.cancelled) return this.#discard(slot, last)

    const { call } = slot
    if (end - bodyStart > call.bodyBytesMax || (!last && tooLarge(headers, call.bodyBytesMax))) {
      if (!last) this.#cancel(slot, CANCEL.outputTooLarge)
      return this.#fail(slot, outputTooLarge(call.bodyBytesMax), last)
    }
    const chunk = keep(buffer, bodyStart, end, owned)
    if (last) {
      this.#release(slot)
      call.answered({ status, headers, body: chunk })
      call.released()
      return
    }
    const body = new ResponseBody(this, slot)
    slot.body = body
    call.answered({ status, headers, body })
    if (chunk.length > 0) body.accept(chunk)
  }

  data(
    flags: number,
    id: number,
    buffer: Buffer,
    start: number,
    end: number,
    owned: boolean,
  ): void {
    const slot = this.#inFlight(id)
    if (slot === undefined) return
    if (slot.state === 'sent') throw new ProtocolError(`DATA for call ${id} before its RESPONSE`)
    this.#receive(slot, end - start)
    const last = (flags & END) !== 0
    if (slot.cancelled) return this.#discard(slot, last)

    const { call } = slot
    const { body } = slot
    if (slot.receivedBytes > call.bodyBytesMax) {
      if (!last) this.#cancel(slot, CANCEL.outputTooLarge)
      return this.#fail(slot, outputTooLarge(call.bodyBytesMax), last)
    }
    if (end > start) body?.accept(keep(buffer, start, end, owned))
    if (!last) return
    // Taking the chunk may have made the consumer destroy the stream.
    if (!slot.cancelled) body?.finish()
    this.#release(slot)
    call.released()
  }

  error(id: number, buffer: Buffer, start: number, end: number): void {
    const slot = this.#inFlight(id)
    if (slot === undefined) return
    this.#fail(slot, this.#readFault(buffer, start, end), true)
  }

  window(id: number, buffer: Buffer, start: number): void {
    const sender = this.#slots[id]?.sender
    if (sender === undefined) return
    this.#checkRead()
    sender.grant(u32At(buffer, start))
  }

  consumed(slot: Slot, bytes: number): void {
    const ungranted = bytes + this.#windowBytes - slot.grantedBytes
    if (ungranted < this.#windowBytes >>> 1) return
    slot.grantedBytes += ungranted
    this.#writer.window(slot.id, ungranted)
  }

  dropped(slot: Slot): void {
    if (slot.cancelled) return
    slot.body = undefined
    this.#cancel(slot, CANCEL.callerGone)
    slot.call.dropped()
  }

  #fits(body: Buffer, requestId: string): boolean {
    return body.length <= this.#windowBytes && requestId.length === PREPARED_ID_BYTES
  }

  #take(call: LinkCall): Slot {
    let slot = this.#free.pop()
    if (slot === undefined) {
      slot = new Slot(this.#slots.length)
      this.#slots.push(slot)
    }
    slot.state = 'sent'
    slot.call = call
    slot.cancelled = false
    slot.receivedBytes = 0
    slot.grantedBytes = this.#windowBytes
    slot.request = call.invocation.requestId
    call.slot = slot.id
    this.#writer.inFlight = this.inFlight
    return slot
  }

  /** The runner's side has ended: ends ours, and the id is free. */
  #release(slot: Slot): void {
    const { call } = slot
    if (slot.sender !== undefined) {
      slot.sender.stop()
      slot.sender = undefined
    }
    if (!slot.sentEnd) {
      slot.sentEnd = true
      this.#writer.end(slot.id)
    }
    slot.state = 'idle'
    slot.call = NO_CALL
    slot.body = undefined
    this.#free.push(slot)
    this.#writer.inFlight = this.inFlight
    call.slot = 0
  }

  #cancel(slot: Slot, reason: CancelReason): void {
    slot.cancelled = true
    slot.sender?.stop()
    slot.sender = undefined
    slot.sentEnd = true
    this.#writer.cancel(slot.id, reason)
    // Nobody reads what has come; an answer that was on its way already still gets to its end.
    if (slot.state === 'answering') this.consumed(slot, slot.receivedBytes)
  }

  /** Tells the call, unless it has been cancelled before and so told already. */
  #fail(slot: Slot, fault: Fault, ended: boolean): void {
    const { call } = slot
    const { body } = slot
    // Cancelled by `#cancel` of this very failure, or by the caller?
    const told = slot.cancelled && ended
    if (ended) this.#release(slot)
    slot.body = undefined
    body?.break(fault)
    if (!told) call.failed(fault)
    if (ended) call.released()
  }

  /** An answer nobody waits for any more: taken at once, so that the runner gets to its end. */
  #discard(slot: Slot, last: boolean): void {
    if (!last) return this.consumed(slot, slot.receivedBytes)
    const { call } = slot
    this.#release(slot)
    call.released()
  }

  #receive(slot: Slot, bytes: number): void {
    slot.receivedBytes += bytes
    if (slot.receivedBytes > slot.grantedBytes || bytes > FRAME_LIMITS.bodyFrameBytesMax) {
      throw new ProtocolError(`Call ${slot.id} sent more body than its window allows`)
    }
  }

  /** The slot of a call that the runner has not ended; what comes for any other is ignored, within reason. */
  #inFlight(id: number): Slot | undefined {
    const slot = this.#slots[id]
    if (slot !== undefined && slot.state !== 'idle') {
      this.#checkRead()
      return slot
    }
    this.#strays += 1
    if (this.#strays > STRAYS_MAX) {
      throw new ProtocolError(`More than ${STRAYS_MAX} frames for calls that are not in flight`)
    }
    return undefined
  }

  /**
   * To answer a call, or to grant it more, is to have read what it has been sent; a runner that answers blindly would have all that it
   * is sent pile up here. One that works cannot get there, however slowly it reads: an id has at most a window and a head under way,
   * cancelled or not, and behind an early answer the window that its last call left unread. The ids count, not the calls in flight: what
   * calls left that have ended is under way, too. All of it twice, because the socket counts a batch until the kernel has taken the last
   * byte of it, and as much may have gathered behind the batch by then.
   *
   * @throws ProtocolError before anything has been done for the frame
   */
  #checkRead(): void {
    const idBytesMax = 2 * (2 * this.#windowBytes + HEAD_BYTES_MAX)
    const backlogBytesMax = (this.#slots.length - 1) * idBytesMax + OTHER_BYTES_MAX
    if (this.#writer.backlogBytes <= backlogBytesMax) return
    throw new ProtocolError('The runner answers but does not read what it is sent')
  }

  #hooks(slot: Slot) {
    return {
      sent: () => {
        slot.sentEnd = true
        slot.sender = undefined
      },
      broke: (fault: Fault) => {
        this.#cancel(slot, CANCEL.callerGone)
        this.#fail(slot, fault, false)
      },
    }
  }
}

type ReadFault = (buffer: Buffer, start: number, end: number) => Fault

const NO_BYTES = Buffer.alloc(0)

/** A head with all that is around it. */
const HEAD_BYTES_MAX = 65_536
/** Frames that carry no body: INIT, PING, WINDOW, CANCEL. */
const OTHER_BYTES_MAX = 1_048_576

/** A runner that works sends none; one that sends many may hit the id of a call that somebody waits for. */
const STRAYS_MAX = 64

function tooLarge(headers: readonly string[], bodyBytesMax: number): boolean {
  for (let index = 0; index < headers.length; index += 2) {
    if (headers[index] === 'content-length') return Number(headers[index + 1]) > bodyBytesMax
  }
  return false
}

function bodyTooLarge(bodyBytesMax: number): Fault {
  return new Fault('BODY_TOO_LARGE', `The body has more than ${bodyBytesMax} bytes`, {
    bodyBytesMax,
  })
}

function outputTooLarge(bodyBytesMax: number): Fault {
  return new Fault(
    'FUNCTION_OUTPUT_TOO_LARGE',
    `The function's answer has more than ${bodyBytesMax} bytes`,
    { bodyBytesMax },
  )
}
