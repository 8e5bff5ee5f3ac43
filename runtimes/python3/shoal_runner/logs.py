"""What the function prints and logs, as LOG frames with the id of the call that wrote it."""

import io
import logging
import sys
import threading
from collections import deque
from contextvars import ContextVar

from . import protocol as p
from .call import Uninterrupted

# The call that the running code belongs to.
current_call = ContextVar("shoal_call", default=None)

_FLUSH_LINES = 256


class Logs:
    """Log lines: straight to the writer while the agent takes them, else kept, bounded, the oldest dropped."""

    def __init__(self):
        self._writer = None
        self._kept = deque()
        self._kept_bytes = 0
        self._dropped = 0
        self._lock = threading.Lock()
        self.flush_soon = None

    def attach(self, writer):
        """Lines go to `writer` from now on; None: the connection is gone, they wait."""
        self._writer = writer
        if writer is None:
            self.disown()
        else:
            writer.on_clear = self.drain
            self.drain()

    def line(self, call_id, level, text):
        data = p.text_frame(p.LOG, call_id, level, text, p.LOG_LINE_BYTES_MAX)
        with Uninterrupted(current_call.get()):
            self._send(data)

    def _send(self, data):
        writer = self._writer
        if writer is None or writer.congested or self._kept:
            self._keep(data)
            # What it waits for may have come before it was kept, and does not come again.
            self.drain()
            return
        writer.append(data)
        if self.flush_soon is not None:
            self.flush_soon()
        elif len(writer) > _FLUSH_LINES or not _in_call():
            writer.flush()
        if len(writer) > _FLUSH_LINES:
            writer.flush()

    def drain(self):
        """Sends what was kept, as far as the agent takes it."""
        writer = self._writer
        if writer is None or writer.congested:
            return
        with self._lock:
            if self._dropped:
                note = f"[{self._dropped} log lines dropped]"
                writer.append(p.text_frame(p.LOG, 0, p.WARN, note, p.LOG_LINE_BYTES_MAX))
                self._dropped = 0
            while self._kept and not writer.congested:
                writer.append(self._kept.popleft())
            self._kept_bytes = sum(map(len, self._kept))
        writer.flush()

    def disown(self, call_id=None):
        """Of lines that wait, those of a call that has ended (None: of all) are nobody's: its id may be another's soon."""
        if not self._kept:
            return
        with self._lock:
            for at, data in enumerate(self._kept):
                if call_id is None or p.call_id_of(data) == call_id:
                    self._kept[at] = p.with_call_id(data, 0)

    def print_lines(self, out, err):
        """Lines go to these streams from now on."""
        self._writer = None
        self._kept.clear()
        self.line = lambda _call_id, level, text: (out if level == p.INFO else err).write(f"{text}\n")

    def _keep(self, data):
        with self._lock:
            self._kept.append(data)
            self._kept_bytes += len(data)
            while len(self._kept) > p.LOG_LINES_MAX or self._kept_bytes > p.LOG_BYTES_MAX:
                self._kept_bytes -= len(self._kept.popleft())
                self._dropped += 1


def _in_call():
    """True when the running code belongs to a call in flight: its end flushes."""
    call = current_call.get()
    return call is not None and not call.ended


class LogStream(io.TextIOBase):
    """Stands for sys.stdout or sys.stderr: every line becomes a log line."""

    encoding = "utf-8"
    errors = "replace"
    line_buffering = True
    write_through = False

    def __init__(self, logs, level, original):
        super().__init__()
        self._logs = logs
        self._level = level
        self._original = original
        self._partial = ""
        self.buffer = _LogBuffer(self)

    @property
    def name(self):
        return "<stdout>" if self._level == p.INFO else "<stderr>"

    def writable(self):
        return True

    def isatty(self):
        return False

    def fileno(self):
        return self._original.fileno()

    def reconfigure(self, *, encoding=None, errors=None, newline=None, line_buffering=None, write_through=None):
        """As a TextIOWrapper has it, for functions that call it; lines are sent as before."""

    def detach(self):
        return self.buffer

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        call = current_call.get()
        call_id = 0 if call is None else call.log_id
        partial = self._partial
        own = call is not None and not call.ended
        if own:
            partial = call.partial.get(self._level, "") if call.partial else ""
        *lines, rest = (partial + text).split("\n")
        for line in lines:
            self._logs.line(call_id, self._level, line[:-1] if line.endswith("\r") else line)
        if len(rest) > p.LOG_LINE_BYTES_MAX:
            self._logs.line(call_id, self._level, rest)
            rest = ""
        if not own:
            self._partial = rest
        elif rest or call.partial:
            if call.partial is None:
                call.partial = {}
            call.partial[self._level] = rest
        return len(text)

    def end_partial(self):
        """Sends an unfinished line that belongs to no call."""
        rest, self._partial = self._partial, ""
        if rest:
            self._logs.line(0, self._level, rest)

    def drop_partial(self):
        self._partial = ""


class _LogBuffer(io.RawIOBase):
    def __init__(self, stream):
        super().__init__()
        self._stream = stream

    def writable(self):
        return True

    def write(self, data):
        self._stream.write(bytes(data).decode("utf-8", "replace"))
        return len(data)


class LogHandler(logging.Handler):
    """Records of the logging module, with their level."""

    def __init__(self, logs, level=logging.NOTSET):
        super().__init__(level)
        self._logs = logs

    def emit(self, record):
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
            return
        number = record.levelno
        level = p.DEBUG if number < 20 else p.INFO if number < 30 else p.WARN if number < 40 else p.ERROR_LEVEL
        call = current_call.get()
        for line in text.split("\n"):
            self._logs.line(0 if call is None else call.log_id, level, line)


def capture_output(logs):
    """Makes log lines of all that goes to sys.stdout, sys.stderr and the logging module."""
    out = LogStream(logs, p.INFO, sys.stdout)
    err = LogStream(logs, p.ERROR_LEVEL, sys.stderr)
    sys.stdout, sys.stderr = out, err
    logging.lastResort = LogHandler(logs, logging.WARNING)
    logging.Logger.handle = _uninterrupted(logging.Logger.handle)
    return out, err


def release_output(logs, streams):
    """In a process that the function has forked: what it prints and logs goes where the output of other programs goes."""
    # Line by line: such a process may end without flushing.
    out, err = (open(fd, "w", 1, "utf-8", "replace", closefd=False) for fd in (1, 2))
    logs.print_lines(out, err)
    call = current_call.get()
    if call is not None:
        # The parent's to finish.
        call.partial = None
    for stream in streams:
        stream.drop_partial()
    if sys.stdout is streams[0]:
        sys.stdout = out
    if sys.stderr is streams[1]:
        sys.stderr = err


def _uninterrupted(handle):
    """A cancel that strikes as a handler takes its lock would leave it held, and no call could log any more."""

    def handle_all(logger, record):
        with Uninterrupted(current_call.get()):
            handle(logger, record)

    return handle_all


def adopt_handlers(logs):
    """Handlers that the function has put on our stderr or stdout (basicConfig does) get the record's own level."""
    for handler in logging.root.handlers[:]:
        if type(handler) is logging.StreamHandler and isinstance(handler.stream, LogStream):
            own = LogHandler(logs, handler.level)
            own.setFormatter(handler.formatter)
            logging.root.removeHandler(handler)
            logging.root.addHandler(own)
