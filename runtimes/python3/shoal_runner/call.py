"""One call: its request and its answer, with flow control both ways.

Only the thread (or task) that runs the function ends its call, so ending needs no lock. What the reading thread does meanwhile
(granting window to a body under way) does.
"""

import threading

from . import protocol as p


class CallCancelled(BaseException):
    """Raised inside a function whose call is cancelled. Not an Exception: `except Exception` lets it pass."""


# Held while an exception is thrown into a function's thread, and while a thread says that it takes none.
cancel_lock = threading.Lock()


class Uninterrupted:
    """Keeps `CallCancelled` out of what a function's thread does for the runner, which it would leave half-done; raised behind it."""

    __slots__ = ("_call", "_thread")

    def __init__(self, call):
        self._call = call

    def __enter__(self):
        call = self._call
        self._thread = None
        if call is None or call.thread != threading.get_ident():
            return
        with cancel_lock:
            self._thread, call.thread = call.thread, None

    def __exit__(self, kind, error, trace):
        if self._thread is None:
            return
        call = self._call
        with cancel_lock:
            if not call.cancelled or call.interrupted:
                call.thread = self._thread
                return
            call.interrupted = True
        if kind is None:
            raise CallCancelled


class Call:
    __slots__ = (
        "_queue",
        "_waiter",
        "arrived",
        "body",
        "cancelled",
        "connection",
        "deadline_ms",
        "end_sent",
        "ended",
        "head",
        "id",
        "interrupted",
        "parts",
        "parts_bytes",
        "partial",
        "received",
        "send_credit",
        "started",
        "task",
        "thread",
        "ungranted",
    )

    def __init__(self, call_id, arrived, deadline_ms, head, body, connection):
        self.id = call_id
        # By time.monotonic(); from then on its deadline is counted.
        self.arrived = arrived
        self.deadline_ms = deadline_ms
        self.head = head
        # bytes when whole, None while it is still coming
        self.body = body
        self.connection = connection
        self.send_credit = connection.window_bytes
        self.ended = False
        self.started = False
        self.cancelled = False
        self.interrupted = False
        self.thread = None
        self.task = None
        self.partial = None
        self._queue = None
        self._waiter = None

    @property
    def log_id(self):
        """What log lines carry: an id that has been given back is no longer this call's."""
        return 0 if self.ended else self.id

    # --- the request's body, when it comes in parts ---

    def begin_body(self, first):
        self.body = None
        self.parts = [first]
        self.parts_bytes = len(first)
        self.ungranted = len(first)
        self.received = self.connection.window_bytes - len(first)
        self._check_credit()
        # The first part alone may have filled the window.
        self._grant()

    def receive(self, data, last):
        """Takes body bytes; True when the body is complete."""
        if self.body is not None:
            raise p.ProtocolError("FORBIDDEN", f"call {self.id}: data after the end of the body")
        self.received -= len(data)
        self._check_credit()
        self.parts.append(data)
        self.parts_bytes += len(data)
        if last:
            self.body = b"".join(self.parts)
            self.parts = None
            return True
        self.ungranted += len(data)
        self._grant()
        return False

    def _grant(self):
        if self.ungranted * 2 >= self.connection.window_bytes:
            self.received += self.ungranted
            self.connection.writer.append(p.window(self.id, self.ungranted))
            self.ungranted = 0

    def _check_credit(self):
        if self.received < 0:
            raise p.ProtocolError("WINDOW_EXCEEDED", f"call {self.id}: more body than granted")

    # --- the answer ---

    def answer(self, status, head, body):
        """Answers with a whole body; False when the call has ended already."""
        connection = self.connection
        size = len(body)
        if size <= self.send_credit and size + len(head) + 4 <= connection.payload_bytes_max and not self.started:
            if self.ended:
                return False
            self.ended = True
            if self.partial:
                self.end_partial()
            connection.free(self)
            connection.writer.append(p.response(self.id, status, head, body, p.END))
            connection.ended(self)
            return True
        if not self.started and not self.start(status, head):
            return False
        with connection.lock:
            self._queue = [memoryview(body), True]
            self._pump()
        return True

    def start(self, status, head):
        """Begins an answer whose body follows; False when the call has ended already."""
        with self.connection.lock:
            if self.ended or self.started:
                return False
            self.started = True
            self.connection.writer.append(p.response(self.id, status, head, b"", 0))
        return True

    def offer(self, data, waiter):
        """Sends body bytes as far as granted. True: all are on their way; else `waiter()` is called when they are."""
        with self.connection.lock:
            if self.ended:
                return True
            self._queue = [memoryview(data), False]
            self._waiter = waiter
            return self._pump()

    def finish(self):
        with self.connection.lock:
            if self.ended:
                return
            self._queue = [memoryview(b""), True]
            self._pump()

    def grant(self, size):
        with self.connection.lock:
            # No agent that consumes what it grants gets beyond the window; one that does would have the output pile up here.
            self.send_credit = min(self.connection.window_bytes, self.send_credit + size)
            if self._queue is not None:
                self._pump()

    def _pump(self):
        view, last = self._queue
        connection = self.connection
        append_data = connection.writer.append_data
        frame_bytes_max = min(p.FRAME_BODY_BYTES_MAX, connection.payload_bytes_max)
        while not self.ended:
            size = min(len(view), self.send_credit, frame_bytes_max)
            if not size and len(view):
                self._queue = [view, last]
                return False
            rest = view[size:]
            end = last and not len(rest)
            if end and self.partial:
                self.end_partial()
            if end:
                connection.free(self)
            if size or end:
                append_data(p.data_prefix(self.id, size, p.END if end else 0), view[:size])
            self.send_credit -= size
            view = rest
            if end:
                self.ended = True
                connection.ended(self)
            if not len(view):
                break
        self._queue = None
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter()
        return True

    def fail(self, kind, text):
        """Ends the call with an error; False when it has ended already."""
        connection = self.connection
        # What the reading thread sends of the body ends here.
        with connection.lock:
            if self.ended:
                return False
            self.ended = True
            self._queue = None
            if self.partial:
                self.end_partial()
            connection.free(self)
            connection.writer.append(p.text_frame(p.ERROR, self.id, kind, text, p.TEXT_BYTES_MAX))
        self._release()
        connection.ended(self)
        return True

    def lose(self):
        """The connection is gone: nobody waits for an answer."""
        with self.connection.lock:
            self.ended = True
        self._release()

    def cancel(self):
        """Says that nobody waits for the answer any more; who waits to send more of it need not."""
        self.cancelled = True
        waiter = self._waiter
        if waiter is not None:
            waiter()

    def _release(self):
        self._queue = None
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter()

    def end_partial(self):
        partial, self.partial = self.partial, None
        for level, text in partial.items():
            if text:
                self.connection.logs.line(self.id, level, text)


def send_chunk(call, data):
    """Sends a part of a streamed body; waits until the caller has room for it. False when the call has ended."""
    if call.ended or call.cancelled:
        return False
    ready = threading.Event()
    sent = call.offer(data, ready.set)
    call.connection.writer.flush()
    if not sent and not call.cancelled:
        ready.wait()
    return not call.ended and not call.cancelled
