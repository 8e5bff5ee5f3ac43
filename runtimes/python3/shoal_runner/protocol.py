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
# Only here, never on the wire: the rest of the frame is still to come.
PART = 0x100

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
_VIEWED_BYTES = 16_384


class ProtocolError(Exception):
    """The other side broke the protocol: the connection is closed. `code` is a word of ../../vectors/streams.json."""

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code = code


class Decoder:
    """Cuts a byte stream into frames; holds at most one unfinished frame that is not large DATA."""

    def __init__(self):
        self.payload_bytes_max = PAYLOAD_BYTES_MAX
        self._parts = []
        self._have = 0
        self._need = PREFIX_BYTES
        # What is still to come of large DATA whose first part has been handed on, its flags and its call.
        self._data_left = 0
        self._data_flags = 0
        self._data_id = 0

    def feed(self, data):
        """The frames that `data` completes, as tuples (type, flags, id, payload).

        A large payload of DATA is a view, not a copy, and comes in several parts when it is split: PART with all but the last.
        """
        frames = []
        at = 0
        size = len(data)
        if self._data_left:
            at = self._pass_data(frames, data, 0, size)
        elif self._parts:
            self._parts.append(data)
            self._have += size
            if self._have < self._need:
                return ()
            data = b"".join(self._parts)
            size = len(data)
            self._parts = []
        while size - at >= PREFIX_BYTES:
            length, kind, flags, _, call_id = _unpack_prefix(data, at)
            if length > self.payload_bytes_max:
                raise ProtocolError("FRAME_TOO_LARGE", f"a frame of {length} bytes")
            if kind == DATA and length > _VIEWED_BYTES:
                self._data_left, self._data_flags, self._data_id = length, flags, call_id
                at = self._pass_data(frames, data, at + PREFIX_BYTES, size)
                continue
            end = at + PREFIX_BYTES + length
            if end > size:
                self._need = end - at
                break
            frames.append((kind, flags, call_id, data[at + PREFIX_BYTES : end]))
            at = end
        else:
            self._need = PREFIX_BYTES
        if at < size:
            self._parts.append(data[at:] if at else data)
            self._have = size - at
        return frames

    def _pass_data(self, frames, data, start, size):
        """Hands on what there is of large DATA; returns where the next frame starts."""
        end = min(size, start + self._data_left)
        if end == start:
            return end
        self._data_left -= end - start
        flags = PART if self._data_left else self._data_flags
        frames.append((DATA, flags, self._data_id, memoryview(data)[start:end]))
        return end


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
