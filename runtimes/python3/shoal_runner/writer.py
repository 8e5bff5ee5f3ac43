"""Frames on their way out: gathered, and written by whichever thread comes first."""

import select
import threading
from collections import deque
from socket import MSG_DONTWAIT


class Writer:
    """Gathers frames and writes them in few large writes.

    No thread but the writer's own ever waits for the agent: what the kernel does not take at once is left to that thread,
    which exists only from then on.
    """

    def __init__(self, sock):
        self._sock = sock
        self._out = deque()
        self._lock = threading.Lock()
        self._tail = b""
        self._wake = threading.Event()
        self._thread = None
        self.congested = False
        self.closed = False
        self.on_clear = lambda: None
        # The hot path appends straight to the queue.
        self.append = self._out.append

    def __len__(self):
        return len(self._out)

    def flush(self):
        """Writes what has been gathered, unless another thread is just doing that."""
        out = self._out
        while out and not self.congested and not self.closed:
            if not self._lock.acquire(False):
                # The thread that holds it looks again after it has let go.
                return
            try:
                if not self.congested:
                    self._write(b"".join([out.popleft() for _ in range(len(out))]))
            finally:
                self._lock.release()

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
        self._tail = data[sent:]
        self.congested = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._drain, name="shoal-writer", daemon=True)
            self._thread.start()
        self._wake.set()

    def _drain(self):
        while not self.closed:
            self._wake.wait()
            self._wake.clear()
            if self.closed:
                return
            if self.congested:
                self._drain_once()

    def _drain_once(self):
        out = self._out
        try:
            with self._lock:
                data, self._tail = self._tail, b""
                while data:
                    self._send(data)
                    data = b"".join([out.popleft() for _ in range(len(out))])
                self.congested = False
        except OSError:
            self.closed = True
            return
        self.on_clear()
        self.flush()

    def _send(self, data):
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view, MSG_DONTWAIT) :]
            except BlockingIOError:
                select.select((), (self._sock,), (), 1.0)
            if self.closed:
                raise OSError("closed")

    def close(self):
        self.closed = True
        self._wake.set()

    def finish(self, timeout_s):
        """Waits until all is written, at most so long."""
        self.flush()
        deadline = threading.Event()
        waited = 0.0
        while (self._out or self.congested) and not self.closed and waited < timeout_s:
            deadline.wait(0.01)
            waited += 0.01
            self.flush()
