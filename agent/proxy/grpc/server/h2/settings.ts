import { CODE, ConnectionError, FRAME_BYTES_MAX, SETTING, WINDOW_BYTES_MAX } from './format.ts'

/** What a peer's SETTINGS change for what we send; absent: nothing. */
export interface PeerSettings {
  windowBytes?: number
  frameBytesMax?: number
  /** It has said how large the table of its decoder is. */
  tableChanged?: boolean
}

const ENTRY_BYTES = 6

/** @throws ConnectionError for values that no peer may send: RFC 9113, section 6.5.2 */
export function readSettings(buffer: Buffer, start: number, end: number): PeerSettings {
  if ((end - start) % ENTRY_BYTES !== 0) {
    throw new ConnectionError(CODE.frameSizeError, `SETTINGS of ${end - start} bytes`)
  }
  const settings: PeerSettings = {}
  for (let at = start; at < end; at += ENTRY_BYTES) {
    const value = buffer.readUInt32BE(at + 2)
    switch (buffer.readUInt16BE(at)) {
      case SETTING.initialWindowSize:
        if (value > WINDOW_BYTES_MAX) throw invalid(CODE.flowControlError, value)
        settings.windowBytes = value
        break
      case SETTING.maxFrameSize:
        if (value < FRAME_BYTES_MAX || value >= 2 ** 24) throw invalid(CODE.protocolError, value)
        settings.frameBytesMax = value
        break
      case SETTING.enablePush:
        if (value > 1) throw invalid(CODE.protocolError, value)
        break
      case SETTING.headerTableSize:
        settings.tableChanged = true
        break
      default: // Streams of ours, header limits, what is not known: none of it concerns what we send.
    }
  }
  return settings
}

function invalid(code: typeof CODE.flowControlError | typeof CODE.protocolError, value: number) {
  return new ConnectionError(code, `SETTINGS with ${value}`)
}

/** The payload of a SETTINGS frame. */
export function writeSettings(settings: readonly (readonly [id: number, value: number])[]): Buffer {
  const payload = Buffer.alloc(settings.length * ENTRY_BYTES)
  for (const [index, [id, value]] of settings.entries()) {
    payload.writeUInt16BE(id, index * ENTRY_BYTES)
    payload.writeUInt32BE(value, index * ENTRY_BYTES + 2)
  }
  return payload
}
