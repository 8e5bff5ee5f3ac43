"""Frames on their way out: gathered, and written by whichever thread comes first."""

import select
import threading
import time
from collections import deque
from socket import MSG_DONTWAIT, SO_SNDBUF, SOL_SOCKET

from .start_thread import start_thread

# From here on a copy costs more than a buffer of its own.
_VIEWED_BYTES = 16_384
# What the kernel may hold, as far as net.core.wmem_max lets it: some windows of some calls, so that few writes are split.
_SEND_BUFFER_BYTES = 1_048_576
# So many calls' answers go out together while further calls wait: the agent deals with them meanwhile, on another core.
WRITTEN_TOGETHER = 4
# Of one write; IOV_MAX of Linux is 1,024.
_BUFFERS_MAX = 256


def rest_of(buffers, sent):
    """What is left of `buffers` after so many bytes of them."""
    for at, buffer in enumerate(buffers):
        if sent < len(buffer):
            return [memoryview(buffer)[sent:], *buffers[at + 1 :]]
        sent -= len(buffer)
    return []


def wait_for(sock, event, timeout_s):
    """Waits for an event of `select.poll`; False: it has not come. `select.select` takes no descriptor from 1,024 on."""
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(timeout_s * 1000))


class Writer:
    """Gathers frames and writes them in few large writes.

    No thread but the writer's own waits for the agent: what the kernel does not take at once is left to that thread, which
    exists only from then on (where it cannot be started, the one that writes waits).
    """

    def __init__(self, sock):
        sock.setsockopt(SOL_SOCKET, SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._sock = sock
        self._out = deque()
        self._lock = threading.Lock()
        # Views of what the kernel has not taken yet.
        self._tail = []
        self._wake = threading.Event()
        self._threaded = False
        self.congested = False
        self.closed = False
        self.on_clear = lambda: None
        # The hot path appends straight to the queue.
        self.append = self._out.append
        self._has_views = False

    def __len__(self):
        return len(self._out)

    def append_data(self, prefix, view):
        """A frame of DATA. What is large is not copied: it must not change until it has been written."""
        if len(view) < _VIEWED_BYTES:
            self.append(b"".join((prefix, view)))
            return
        # In this order, and at once: whoever takes the frame is to know of it, and no other frame may come in between.
        self._has_views = True
        self._out.extend((prefix, view))

    def flush(self):
        """Writes what has been gathered, unless another thread is just doing that."""
        out = self._out
        while out and not self.closed and not (self.congested and self._threaded):
            if not self._lock.acquire(False):
                # The thread that holds it looks again after it has let go.
                return
            try:
                if not self.congested:
                    if self._has_views:
                        self._write_buffers(self._take())
                    else:
                        self._write(b"".join([out.popleft() for _ in range(len(out))]))
            finally:
                self._lock.release()
            if self.congested and not self._threaded:
                # No thread could be started for it: then this one has to wait.
                self._drain_once()

    def _take(self):
        """What has been gathered, in buffers for one write."""
        out = self._out
        self._has_views = False
        buffers = [out.popleft() for _ in range(len(out))]
        return buffers if len(buffers) <= _BUFFERS_MAX else [b"".join(buffers)]

    def _write(self, data):
        try:
            sent = self._sock.send(data, MSG_DONTWAIT)
            if sent == len(data):
                return
        except BlockingIOError:
            sent = 0
        except OSError:
            # The reader learns of it as well, and deals with it.
            self.closed = True
            return
        self._leave([data], sent)

    def _write_buffers(self, buffers):
        try:
            sent = self._sock.sendmsg(buffers, (), MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.closed = True
            return
        if sent < sum(map(len, buffers)):
            self._leave(buffers, sent)

    def _leave(self, buffers, sent):
        """Leaves to the writer's thread what the kernel has not taken."""
        self._tail = rest_of(buffers, sent)
        self.congested = True
        self._threaded = self._threaded or start_thread("shoal-writer", self._drain)
        self._wake.set()

    def _drain(self):
        while not self.closed:
            self._wake.wait()
            self._wake.clear()
            if self.closed:
                return
            if self.congested:
                self._drain_once()
                self.flush()

    def _drain_once(self):
        out = self._out
        try:
            with self._lock:
                while self._tail or out:
                    if not self._tail:
                        self._tail = self._take()
                    self._send_tail()
                self.congested = False
        except (OSError, ValueError):
            # The latter when the reader has closed the socket.
            self.closed = True
            return
        self.on_clear()

    def _send_tail(self):
        """Sends what is left."""
        while self._tail:
            try:
                self._tail = rest_of(self._tail, self._sock.sendmsg(self._tail, (), MSG_DONTWAIT))
            except BlockingIOError:
                wait_for(self._sock, select.POLLOUT, 1.0)
            if self.closed:
                raise OSError("closed")

    def close(self):
        self.closed = True
        self._wake.set()

    def finish(self, timeout_s):
        """Waits until all is written, at most so long."""
        until = time.monotonic() + timeout_s
        while not self.closed and time.monotonic() < until:
            self.flush()
            # In this order: a thread that holds the lock may have taken what it has not written yet, and may leave a rest.
            if not (self._out or self._lock.locked() or self.congested):
                return
            time.sleep(0.001)
