"""Frames of the runner protocol: numbers, decoding, encoding. See ../../PROTOCOL.md."""

import json
from struct import Struct

HELLO, WELCOME, INIT, READY, SHUTDOWN = 0x01, 0x02, 0x03, 0x04, 0x05
REQUEST, RESPONSE, DATA, WINDOW, CANCEL, ERROR = 0x10, 0x11, 0x12, 0x13, 0x14, 0x15
LOG, PING, PONG = 0x20, 0x30, 0x31

KNOWN = frozenset(
    (HELLO, WELCOME, INIT, READY, SHUTDOWN, REQUEST, RESPONSE, DATA, WINDOW, CANCEL, ERROR, LOG, PING, PONG)
)

END = 0x01

KIND_FUNCTION, KIND_NOT_READY, KIND_BAD_ANSWER, KIND_CANCELLED, KIND_LIMIT = 0, 1, 2, 3, 4
DEBUG, INFO, WARN, ERROR_LEVEL = 0, 1, 2, 3

PREFIX_BYTES = 12
PAYLOAD_BYTES_MAX = 1_114_112
HEAD_BYTES_MAX = 65_535
WINDOW_BYTES = 262_144
FRAME_BODY_BYTES_MAX = 1_048_576
TEXT_BYTES_MAX = 16_384
LOG_LINES_MAX = 1_000
LOG_BYTES_MAX = 1_048_576
LOG_LINE_BYTES_MAX = 16_384
PING_BYTES_MAX = 64
GREETING_S = 5.0
# A request body is read as a whole; the agent's own limit is lower.
BODY_BYTES_MAX = 67_108_864

_PREFIX = Struct(">IBBHI")
_RESPONSE = Struct(">IBBHIHH")
_REQUEST = Struct(">IH")
_U32 = Struct(">I")
_unpack_prefix = _PREFIX.unpack_from
_pack_prefix = _PREFIX.pack
_pack_response = _RESPONSE.pack
unpack_request = _REQUEST.unpack_from
unpack_u32 = _U32.unpack_from


# From here on a copy costs more than a view, which keeps all that was read with it.
_LARGE_BYTES = 16_384
_READ_BYTES = 262_144


class ProtocolError(Exception):
    """The other side broke the protocol: the connection is closed. `code` is a word of ../../vectors/streams.json."""

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code = code


def need(enough, name):
    if not enough:
        raise ProtocolError("PAYLOAD_TOO_SHORT", name)


class Decoder:
    """Cuts a byte stream into frames; holds at most one unfinished frame."""

    def __init__(self):
        self.payload_bytes_max = PAYLOAD_BYTES_MAX
        # The rest of large DATA is read straight to where it stays.
        self._data = None
        self._room = None
        self._parts = []
        self._have = 0
        self._need = PREFIX_BYTES

    def read(self, sock):
        """The frames that the next bytes of a socket complete, as tuples (type, flags, id, payload); None at its end.

        A large payload of DATA is no `bytes`, but something like it.
        """
        if self._room is None:
            data = sock.recv(_READ_BYTES)
            return self.feed(data) if data else None
        size = sock.recv_into(self._room)
        return self._filled(size) if size else None

    def feed(self, data):
        """The frames that `data` completes. Not while the rest of large DATA is awaited."""
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return ()
            data = b"".join(self._parts)
            self._parts = []
        frames = []
        at = 0
        size = len(data)
        while size - at >= PREFIX_BYTES:
            length, kind, flags, _, call_id = _unpack_prefix(data, at)
            if length > self.payload_bytes_max:
                raise ProtocolError("FRAME_TOO_LARGE", f"a frame of {length} bytes")
            end = at + PREFIX_BYTES + length
            if end > size:
                if kind == DATA and length > _LARGE_BYTES:
                    self._begin(data[at + PREFIX_BYTES :], length, flags, call_id)
                    at = size
                self._need = end - at
                break
            whole = memoryview(data) if kind == DATA and length > _LARGE_BYTES else data
            frames.append((kind, flags, call_id, whole[at + PREFIX_BYTES : end]))
            at = end
        else:
            self._need = PREFIX_BYTES
        if at < size:
            self._parts.append(data[at:] if at else data)
            self._have = size - at
        return frames

    def _begin(self, first, length, flags, call_id):
        payload = bytearray(length)
        payload[: len(first)] = first
        self._data = (DATA, flags, call_id, payload)
        self._room = memoryview(payload)[len(first) :]

    def _filled(self, size):
        self._room = self._room[size:]
        if len(self._room):
            return ()
        self._room, self._need = None, PREFIX_BYTES
        whole, self._data = self._data, None
        return (whole,)


def frame(kind, call_id, payload=b"", flags=0):
    return _pack_prefix(len(payload), kind, flags, 0, call_id) + payload


def data_prefix(call_id, size, flags):
    """What precedes the payload of DATA."""
    return _pack_prefix(size, DATA, flags, 0, call_id)


def response(call_id, status, head, body, flags):
    head_bytes = len(head)
    return _pack_response(4 + head_bytes + len(body), RESPONSE, flags, 0, call_id, status, head_bytes) + head + body


def window(call_id, size):
    return frame(WINDOW, call_id, _U32.pack(size))


def text_frame(kind, call_id, first, text, bytes_max):
    """ERROR or LOG: one byte, then text."""
    return frame(kind, call_id, bytes((first,)) + cut(text, bytes_max))


def call_id_of(data):
    """The id in an encoded frame."""
    return _unpack_prefix(data)[4]


def with_call_id(data, call_id):
    """An encoded frame with another id."""
    return _pack_prefix(*_unpack_prefix(data)[:4], call_id) + data[_PREFIX.size :]


def message(kind, value):
    return frame(kind, 0, json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def parse_message(payload):
    try:
        value = json.loads(payload)
    except ValueError as error:
        raise ProtocolError("JSON_MALFORMED", str(error)) from error
    if not isinstance(value, dict):
        raise ProtocolError("JSON_MALFORMED", "a message that is no JSON object")
    return value


def parse_request(payload):
    """(deadline_ms, head, body) of a REQUEST; the head is split on demand (`split_head`), but checked here."""
    if len(payload) < 6:
        raise ProtocolError("PAYLOAD_TOO_SHORT", "REQUEST")
    deadline_ms, head_bytes = unpack_request(payload)
    end = 6 + head_bytes
    if end > len(payload):
        raise ProtocolError("PAYLOAD_TOO_SHORT", "REQUEST")
    head = payload[6:end]
    feeds = head.count(b"\n")
    if feeds < 2 or feeds & 1:
        raise ProtocolError("HEAD_MALFORMED", f"a request head of {feeds + 1} lines")
    return deadline_ms, head, payload[end:]


def split_head(head):
    """Lines of a request's head: method, path, query, then names and values."""
    return head.decode("utf-8", "replace").split("\n")


def cut(text, bytes_max):
    """UTF-8 of `text`, at most `bytes_max` bytes, cut at the end with `...`."""
    data = text.encode("utf-8", "replace")
    if len(data) <= bytes_max:
        return data
    return data[: bytes_max - 3].decode("utf-8", "ignore").encode() + b"..."
