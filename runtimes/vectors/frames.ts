import { hexOf, type Fields, type FrameVector, type TypeName } from './encode.ts'

export const HELLO_JSON =
  '{"protocol":{"min":1,"max":1},"handler":"k3v9x2m4q8ab","runtime":"nodejs","runner":"1.0.0","pid":1,"state":"empty"}'
const HELLO_READY_JSON =
  '{"protocol":{"min":1,"max":1},"handler":"k3v9x2m4q8ab","runtime":"python3","runner":"1.0.0","pid":7,"state":"ready","fn":"site/thermo","release":"r2-0a1b2c3d"}'
export const WELCOME_JSON = '{"protocol":1,"windowBytes":262144,"payloadBytesMax":1114112}'
export const INIT_JSON =
  '{"fn":"sieve","release":"r1-0a1b2c3d","dir":"/shoal/fn","entry":"index.js","env":{"GREETING":"grüß dich"},"concurrency":64,"timeoutMs":30000}'

function of(
  name: string,
  from: 'agent' | 'runner',
  type: TypeName,
  id: number,
  fields: Fields = {},
  end = false,
): FrameVector {
  return { name, from, type, end, id, fields }
}

export const POST = { deadlineMs: 30_000, method: 'POST', path: '', query: '' } as const

/** One vector per shape of a valid frame. */
export const FRAMES: readonly FrameVector[] = [
  of('hello of an empty runner', 'runner', 'HELLO', 0, { json: HELLO_JSON }),
  of('hello of a runner that kept its function', 'runner', 'HELLO', 0, { json: HELLO_READY_JSON }),
  of('welcome', 'agent', 'WELCOME', 0, { json: WELCOME_JSON }),
  of('welcome that turns the runner away', 'agent', 'WELCOME', 0, {
    json: '{"protocol":0,"error":"this agent speaks versions 2 to 3"}',
  }),
  of('init with an entry and a value outside ASCII', 'agent', 'INIT', 0, { json: INIT_JSON }),
  of('ready', 'runner', 'READY', 0, { json: '{"ok":true}' }),
  of('not ready, with the reason', 'runner', 'READY', 0, {
    json: '{"ok":false,"error":"SyntaxError: Unexpected end of input\\n    at index.js:3"}',
  }),
  of('shutdown', 'agent', 'SHUTDOWN', 0),
  of(
    'smallest request: a method and nothing else',
    'agent',
    'REQUEST',
    1,
    { ...POST, deadlineMs: 0, method: 'GET' },
    true,
  ),
  of(
    'request with path, query, headers and a whole body',
    'agent',
    'REQUEST',
    7,
    {
      ...POST,
      path: '/a/b%20c',
      query: 'x=1&y=%C3%BC',
      headers: [
        'content-type',
        'text/plain',
        'shoal-request-id',
        '01k9ab',
        'shoal-protocol',
        'http',
      ],
      bodyHex: hexOf('hello'),
    },
    true,
  ),
  of('request whose body goes on', 'agent', 'REQUEST', 2, { ...POST, bodyHex: hexOf('first ') }),
  of(
    'request with a header twice, one empty value, text outside ASCII and the highest id',
    'agent',
    'REQUEST',
    0xff_ff_ff_ff,
    {
      ...POST,
      deadlineMs: 0xff_ff_ff_ff,
      method: 'PUT',
      headers: ['accept', 'a', 'accept', 'b', 'x-empty', '', 'x-name', 'Jürgen 温'],
    },
    true,
  ),
  of(
    'request with a body of all byte values',
    'agent',
    'REQUEST',
    3,
    { ...POST, bodyHex: Buffer.from(Array.from({ length: 256 }, (_, i) => i)).toString('hex') },
    true,
  ),
  of('smallest response', 'runner', 'RESPONSE', 1, { status: 200 }, true),
  of(
    'response with headers and a whole body',
    'runner',
    'RESPONSE',
    7,
    {
      status: 404,
      headers: ['content-type', 'application/json', 'x-a', 'ü'],
      bodyHex: hexOf('{"a":1}'),
    },
    true,
  ),
  of('response whose body goes on', 'runner', 'RESPONSE', 2, {
    status: 200,
    headers: ['content-type', 'text/plain'],
  }),
  of(
    'response with one header without a value',
    'runner',
    'RESPONSE',
    4,
    { status: 204, headers: ['x-empty', ''] },
    true,
  ),
  of('data', 'agent', 'DATA', 2, { bodyHex: hexOf('second') }),
  of('last data', 'runner', 'DATA', 2, { bodyHex: '00ff' }, true),
  of('last data without bytes', 'agent', 'DATA', 2, {}, true),
  of('window', 'agent', 'WINDOW', 2, { bytes: 131_072 }),
  of('largest window', 'runner', 'WINDOW', 2, { bytes: 0xff_ff_ff_ff }),
  of('cancel: the caller has gone', 'agent', 'CANCEL', 9, { reason: 0 }),
  of('cancel: shutting down', 'agent', 'CANCEL', 9, { reason: 3 }),
  of('error of the function', 'runner', 'ERROR', 9, {
    kind: 0,
    text: 'TypeError: x is not a function\n    at fn.js:1',
  }),
  of('error without text', 'runner', 'ERROR', 9, { kind: 4, text: '' }),
  of('log line of a call', 'runner', 'LOG', 9, { level: 1, text: 'Grüße' }),
  of('log line of no call, empty', 'runner', 'LOG', 0, { level: 3, text: '' }),
  of('ping', 'agent', 'PING', 0, { bodyHex: '0102030405060708' }),
  of('ping without payload', 'agent', 'PING', 5),
  of('pong with the longest payload', 'runner', 'PONG', 5, { bodyHex: 'ab'.repeat(64) }),
]
