import { frame, PAYLOAD, TYPES, utf8, type Fields, type TypeName } from './encode.ts'
import { HELLO_JSON, INIT_JSON, POST, WELCOME_JSON } from './frames.ts'

const request = (id: number, fields: Fields = {}, end = true): Buffer =>
  frame(TYPES.REQUEST, end ? 1 : 0, id, PAYLOAD.REQUEST({ ...POST, ...fields }))
const response = (id: number, fields: Fields = {}, end = true): Buffer =>
  frame(TYPES.RESPONSE, end ? 1 : 0, id, PAYLOAD.RESPONSE({ status: 200, ...fields }))
const json = (type: TypeName, value: string): Buffer => frame(TYPES[type], 0, 0, utf8(value))
const raw = (type: TypeName, id: number, hex: string, flags = 0): Buffer =>
  frame(TYPES[type], flags, id, Buffer.from(hex, 'hex'))

type ProtocolError =
  | 'FRAME_TOO_LARGE'
  | 'PAYLOAD_TOO_SHORT'
  | 'PAYLOAD_TOO_LONG'
  | 'HEAD_MALFORMED'
  | 'STATUS_OUT_OF_RANGE'
  | 'JSON_MALFORMED'
  | 'FORBIDDEN'

interface StreamVector {
  readonly name: string
  readonly receiver: 'agent' | 'runner'
  /**
   * Where the connection stands: just connected, after WELCOME, or after READY {ok:true} with no call in flight. A function
   * that is called with the path `/never` does not answer.
   */
  readonly after: 'connect' | 'welcome' | 'ready'
  /** True: the bytes of one frame alone show it. False: it takes the state of the connection or the call. */
  readonly local: boolean
  readonly error: ProtocolError | null
  readonly hex: string
}

function stream(
  name: string,
  receiver: StreamVector['receiver'],
  after: StreamVector['after'],
  error: ProtocolError | null,
  bytes: readonly Buffer[],
  local = false,
): StreamVector {
  return { name, receiver, after, local, error, hex: Buffer.concat(bytes).toString('hex') }
}

const PAYLOAD_BYTES_MAX = 1_114_112
const none = Buffer.alloc(0)

/** Byte streams, and what the receiver makes of them: nothing, or the error that closes the connection. */
export const STREAMS: readonly StreamVector[] = [
  stream(
    'a length one above the limit',
    'runner',
    'ready',
    'FRAME_TOO_LARGE',
    [frame(TYPES.DATA, 0, 1, none, PAYLOAD_BYTES_MAX + 1)],
    true,
  ),
  stream(
    'the largest length there is',
    'agent',
    'ready',
    'FRAME_TOO_LARGE',
    [frame(TYPES.LOG, 0, 0, none, 0xff_ff_ff_ff)],
    true,
  ),
  stream(
    'an unknown type above the limit',
    'runner',
    'ready',
    'FRAME_TOO_LARGE',
    [frame(0x7f, 0, 0, none, PAYLOAD_BYTES_MAX + 1)],
    true,
  ),
  stream(
    'request without room for its fixed fields',
    'runner',
    'ready',
    'PAYLOAD_TOO_SHORT',
    [raw('REQUEST', 1, '0000000000')],
    true,
  ),
  stream(
    'request whose head is longer than its payload',
    'runner',
    'ready',
    'PAYLOAD_TOO_SHORT',
    [raw('REQUEST', 1, '0000000000054745540a')],
    true,
  ),
  stream(
    'response without room for its fixed fields',
    'agent',
    'ready',
    'PAYLOAD_TOO_SHORT',
    [raw('RESPONSE', 1, '00c800')],
    true,
  ),
  stream(
    'response whose head is longer than its payload',
    'agent',
    'ready',
    'PAYLOAD_TOO_SHORT',
    [raw('RESPONSE', 1, '00c80001')],
    true,
  ),
  stream(
    'window of three bytes',
    'runner',
    'ready',
    'PAYLOAD_TOO_SHORT',
    [raw('WINDOW', 1, '000001')],
    true,
  ),
  stream(
    'cancel without a reason',
    'runner',
    'ready',
    'PAYLOAD_TOO_SHORT',
    [raw('CANCEL', 1, '')],
    true,
  ),
  stream(
    'error without a kind',
    'agent',
    'ready',
    'PAYLOAD_TOO_SHORT',
    [raw('ERROR', 1, '')],
    true,
  ),
  stream('log without a level', 'agent', 'ready', 'PAYLOAD_TOO_SHORT', [raw('LOG', 0, '')], true),
  stream(
    'ping of 65 bytes',
    'runner',
    'ready',
    'PAYLOAD_TOO_LONG',
    [raw('PING', 0, '00'.repeat(65))],
    true,
  ),
  stream(
    'request head of two lines',
    'runner',
    'ready',
    'HEAD_MALFORMED',
    [raw('REQUEST', 1, '0000000000044745540a', 1)],
    true,
  ),
  stream(
    'request head with a name and no value',
    'runner',
    'ready',
    'HEAD_MALFORMED',
    [raw('REQUEST', 1, '0000000000074745540a0a0a61', 1)],
    true,
  ),
  stream(
    'response head with a name and no value',
    'agent',
    'ready',
    'HEAD_MALFORMED',
    [raw('RESPONSE', 1, '00c8000161', 1)],
    true,
  ),
  stream('status 99', 'agent', 'ready', 'STATUS_OUT_OF_RANGE', [response(1, { status: 99 })], true),
  stream(
    'status 600',
    'agent',
    'ready',
    'STATUS_OUT_OF_RANGE',
    [response(1, { status: 600 })],
    true,
  ),
  stream('init that is not JSON', 'runner', 'welcome', 'JSON_MALFORMED', [json('INIT', '{"fn":')]),
  stream('init that is a list', 'runner', 'welcome', 'JSON_MALFORMED', [json('INIT', '[]')]),
  stream('hello that is not JSON', 'agent', 'connect', 'JSON_MALFORMED', [json('HELLO', 'hello')]),
  stream('request before welcome', 'runner', 'connect', 'FORBIDDEN', [request(1)]),
  stream('request before init', 'runner', 'welcome', 'FORBIDDEN', [request(1)]),
  stream('init before welcome', 'runner', 'connect', 'FORBIDDEN', [json('INIT', INIT_JSON)]),
  stream('second welcome', 'runner', 'welcome', 'FORBIDDEN', [json('WELCOME', WELCOME_JSON)]),
  stream('second init', 'runner', 'ready', 'FORBIDDEN', [json('INIT', INIT_JSON)]),
  stream('response sent to a runner', 'runner', 'ready', 'FORBIDDEN', [response(1)]),
  stream('hello sent to a runner', 'runner', 'ready', 'FORBIDDEN', [json('HELLO', HELLO_JSON)]),
  stream('request sent to an agent', 'agent', 'ready', 'FORBIDDEN', [request(1)]),
  stream('ready before hello', 'agent', 'connect', 'FORBIDDEN', [json('READY', '{"ok":true}')]),
  stream('response before ready', 'agent', 'welcome', 'FORBIDDEN', [response(1)]),
  stream('second hello', 'agent', 'welcome', 'FORBIDDEN', [json('HELLO', HELLO_JSON)]),
  stream('request with id 0', 'runner', 'ready', 'FORBIDDEN', [request(0)]),
  stream('request with the id of a call in flight', 'runner', 'ready', 'FORBIDDEN', [
    request(1, { path: '/never' }, false),
    request(1, { path: '/never' }, false),
  ]),
  stream('data after the end of the body', 'runner', 'ready', 'FORBIDDEN', [
    request(1, { path: '/never' }, false),
    raw('DATA', 1, '61', 1),
    raw('DATA', 1, '62'),
  ]),
  stream('unknown types are skipped', 'runner', 'ready', null, [
    frame(0x7f, 0xff, 9, utf8('later')),
    frame(0x00, 0, 0, none),
    raw('PING', 0, '01'),
  ]),
  stream('unknown flags are skipped', 'runner', 'ready', null, [raw('PING', 0, '01', 0xfe)]),
  stream('frames for calls that are not known are skipped', 'runner', 'ready', null, [
    raw('DATA', 5, '61'),
    raw('DATA', 5, '', 1),
    raw('WINDOW', 5, '00000001'),
    raw('CANCEL', 5, '00'),
    raw('PING', 0, '01'),
  ]),
  stream('answers to calls that are not known are skipped', 'agent', 'ready', null, [
    response(5, {}, false),
    raw('DATA', 5, '61', 1),
    raw('ERROR', 5, '00'),
    raw('WINDOW', 5, '00000001'),
    raw('PING', 0, '01'),
  ]),
  stream('a log line of a call that has ended', 'agent', 'ready', null, [
    raw('LOG', 77, '0161'),
    raw('PING', 0, '01'),
  ]),
]
