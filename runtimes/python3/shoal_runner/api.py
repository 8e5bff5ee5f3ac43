"""What a native function sees: `handle(request, context)`. Imported by functions as `from shoal import Response`."""

import json
import time
from urllib.parse import parse_qsl

from . import protocol as p

_TITLES = {}


class Headers(dict):
    """Header fields by lower-case name; `get` and `[]` take a name in any case. Repeated fields are joined, see `fold`."""

    def __getitem__(self, name):
        return super().__getitem__(name.lower())

    def __contains__(self, name):
        return super().__contains__(name.lower())

    def get(self, name, default=None):
        return super().get(name.lower(), default)


class Request:
    """One request. `body` is bytes."""

    __slots__ = ("_head", "_headers", "_split", "body")

    def __init__(self, head, body):
        self._head = head
        self._split = None
        self._headers = None
        self.body = body

    @property
    def _lines(self):
        # Only when asked for: it costs as much as all else of a small function's arguments.
        if self._split is None:
            self._split = p.split_head(self._head)
        return self._split

    @property
    def method(self):
        return self._lines[0]

    @property
    def path(self):
        """The rest of the path behind the function's name: empty, or starts with `/`."""
        return self._lines[1]

    @property
    def query(self):
        """The query as it came, without `?`."""
        return self._lines[2]

    @property
    def args(self):
        """The query as a dict; of a repeated name the last value."""
        return dict(parse_qsl(self._lines[2], keep_blank_values=True))

    @property
    def headers(self):
        if self._headers is None:
            self._headers = Headers(fold(self._lines))
        return self._headers

    @property
    def header_list(self):
        """(name, value) of every field, in order."""
        lines = self._lines
        return list(zip(lines[3::2], lines[4::2]))

    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.body)


class Response:
    """An answer with status and headers. `body`: str, bytes, None, anything that has a JSON form, or an iterator of parts."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, body=None, status=200, headers=None, content_type=None):
        self.body = body
        self.status = status
        self.headers = headers
        if content_type is not None:
            self.headers = [*pairs(headers), ("content-type", content_type)]


class Context:
    """What a function learns about its call besides the request."""

    __slots__ = ("_call", "fn", "release")

    def __init__(self, call, fn, release):
        self._call = call
        self.fn = fn
        self.release = release

    @property
    def request_id(self):
        return field(self._call.head, "shoal-request-id")

    @property
    def protocol(self):
        """What the call came by: http, coap, grpc, nats, async."""
        return field(self._call.head, "shoal-protocol")

    @property
    def deadline_ms(self):
        """Milliseconds that were left when the call arrived; None: no limit."""
        return self._call.deadline_ms or None

    def remaining_ms(self):
        """Milliseconds that are left now; None: no limit."""
        if not self._call.deadline_ms:
            return None
        return max(0, self._call.deadline_ms - int((time.monotonic() - self._call.arrived) * 1000))

    @property
    def cancelled(self):
        """True when the caller has gone or the deadline has passed."""
        return self._call.cancelled

    @property
    def log(self):
        """A logger whose lines carry the call's id and a level."""
        return _logger(self._call)


class _logger:
    __slots__ = ("_call",)

    def __init__(self, call):
        self._call = call

    def _line(self, level, message, values):
        text = str(message) % values if values else str(message)
        for line in text.split("\n"):
            self._call.connection.logs.line(self._call.log_id, level, line)

    def debug(self, message, *values):
        self._line(p.DEBUG, message, values)

    def info(self, message, *values):
        self._line(p.INFO, message, values)

    def warning(self, message, *values):
        self._line(p.WARN, message, values)

    def error(self, message, *values):
        self._line(p.ERROR_LEVEL, message, values)


def field(head, name):
    lines = p.split_head(head)
    for at in range(3, len(lines), 2):
        if lines[at] == name:
            return lines[at + 1]
    return ""


def fold(lines):
    """Header fields as a dict, repeated ones joined by a comma; cookies by a semicolon, RFC 9113 section 8.2.3."""
    headers = {}
    for at in range(3, len(lines), 2):
        name, value = lines[at], lines[at + 1]
        before = headers.get(name)
        if before is not None:
            value = f"{before}; {value}" if name == "cookie" else f"{before}, {value}"
        headers[name] = value
    return headers


def title_headers(lines, body_bytes):
    """Header fields as a dict with names such as `Content-Type`, as tinyFaaS hands them on."""
    headers = {}
    for name, value in fold(lines).items():
        title = _TITLES.get(name)
        if title is None:
            title = "-".join(part.capitalize() for part in name.split("-"))
            if len(_TITLES) < 1_000:
                _TITLES[name] = title
        headers[title] = value
    headers.setdefault("Content-Length", str(body_bytes))
    return headers


def pairs(headers):
    """Header fields given as a dict (values may be lists) or as pairs, as a list of pairs."""
    if headers is None:
        return []
    items = headers.items() if hasattr(headers, "items") else headers
    out = []
    for name, value in items:
        if isinstance(value, (list, tuple)):
            out.extend((name, each) for each in value)
        else:
            out.append((name, value))
    return out


