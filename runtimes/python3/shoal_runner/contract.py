"""Between a call and the user's function: arguments in, answer out, for both contracts.

classic: `fn(input)` or `fn(input, headers)`, `input` is str, or None when the body is empty.
native: `handle(request, context)`.
"""

import inspect
import json
import traceback

from . import protocol as p
from .api import Context, Request, Response, pairs, title_headers

TEXT = b"content-type\ntext/plain; charset=utf-8"
JSON = b"content-type\napplication/json"
BYTES = b"content-type\napplication/octet-stream"

_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")


class BadAnswer(Exception):
    """What the function returned cannot be sent."""


class Contract:
    """The user's function, ready to be called."""

    def __init__(self, function, kind, fn, release):
        self.function = function
        self.kind = kind
        target = function if inspect.isroutine(function) or inspect.isclass(function) else type(function).__call__
        self.is_async = inspect.iscoroutinefunction(target) or inspect.isasyncgenfunction(target)
        if kind == "native":
            only_request = count_arguments(function, 2) == 1
            self.arguments = _native_request if only_request else _native_arguments(fn, release)
        else:
            takes = count_arguments(function, 2)
            self.arguments = (_no_arguments, _classic_input, _classic_arguments)[takes]


def count_arguments(function, most):
    """How many positional arguments the function takes, at most `most`."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    count = 0
    for each in parameters:
        if each.kind is each.VAR_POSITIONAL:
            return most
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD):
            count += 1
    return min(count, most)


# surrogateescape: what is no UTF-8 passes through a function that returns its input
def _classic_input(call):
    return (call.body.decode("utf-8", "surrogateescape") if call.body else None,)


def _classic_arguments(call):
    body = call.body
    text = body.decode("utf-8", "surrogateescape") if body else None
    return (text, title_headers(p.split_head(call.head), len(body)))


def _no_arguments(_call):
    return ()


def _native_request(call):
    return (Request(call.head, call.body),)


def _native_arguments(fn, release):
    return lambda call: (Request(call.head, call.body), Context(call, fn, release))


def is_stream(value):
    """True for iterators of body parts: generators and the like, no plain containers."""
    return hasattr(value, "__next__") or hasattr(value, "__anext__")


def parts_of(result, kind):
    """(status, head, body) of what a function returned; a body that is an iterator is to be streamed."""
    if isinstance(result, str):
        return 200, TEXT, result.encode("utf-8", "surrogateescape")
    if type(result) is bytes:
        return 200, BYTES, result
    if result is None:
        return 200, b"", b""
    if isinstance(result, Response):
        return _explicit(result.body, result.status, result.headers)
    if kind == "native" and isinstance(result, tuple):
        if len(result) not in (2, 3):
            raise BadAnswer(f"a tuple of {len(result)}; (body, status) or (body, status, headers) it is")
        return _explicit(result[0], result[1], result[2] if len(result) == 3 else None)
    content_type, body = _body(result)
    return 200, content_type, body


def _explicit(content, status, headers):
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise BadAnswer(f"the status {status!r}; it must be a number from 200 to 599")
    content_type, body = _body(content)
    lines = []
    typed = False
    for name, value in pairs(headers):
        key, text = str(name).lower(), str(value)
        if not key or not _TOKEN.issuperset(key):
            raise BadAnswer(f"{name!r} cannot be the name of a header")
        if "\n" in text or "\r" in text or "\0" in text:
            raise BadAnswer(f"the value of the header {name!r} has a line end")
        typed = typed or key == "content-type"
        lines.append(f"{key}\n{text}")
    head = "\n".join(lines).encode("utf-8", "surrogateescape")
    if content_type and not typed:
        head = head + b"\n" + content_type if head else content_type
    if len(head) > p.HEAD_BYTES_MAX:
        raise BadAnswer(f"headers above {p.HEAD_BYTES_MAX} bytes")
    return status, head, body


def _body(content):
    """(content type, body) of a result's content."""
    if isinstance(content, str):
        return TEXT, content.encode("utf-8", "surrogateescape")
    if content is None:
        return b"", b""
    if isinstance(content, (bytes, bytearray, memoryview)):
        return BYTES, bytes(content)
    if is_stream(content):
        return BYTES, content
    try:
        return JSON, json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except (TypeError, ValueError) as error:
        raise BadAnswer(f"a {type(content).__name__} that has no JSON form ({error})") from error


def chunk_bytes(part):
    """A part of a streamed body as bytes."""
    if isinstance(part, str):
        return part.encode("utf-8", "surrogateescape")
    if isinstance(part, (bytes, bytearray, memoryview)):
        return bytes(part)
    raise BadAnswer(f"its generator gave a {type(part).__name__}; str or bytes it must be")


def error_text(error):
    """An exception for a person: the traceback without the runner's own lines, the message last."""
    trace = error.__traceback__
    while trace is not None and "shoal_runner" in trace.tb_frame.f_code.co_filename:
        trace = trace.tb_next
    try:
        lines = traceback.format_exception(type(error), error, trace)
        first = traceback.format_exception_only(type(error), error)[-1].strip()
        return first + "\n" + "".join(lines).rstrip()
    except Exception:
        return type(error).__name__
