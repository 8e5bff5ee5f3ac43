"""What calls need of the connection they came by."""

import threading

from . import protocol as p
from .writer import Writer


class Connection:
    """One connection to the agent, as long as it lasts."""

    __slots__ = ("calls", "ended", "lock", "logs", "open", "payload_bytes_max", "sock", "window_bytes", "writer")

    def __init__(self, sock, logs, on_ended):
        self.sock = sock
        self.writer = Writer(sock)
        self.logs = logs
        self.lock = threading.Lock()
        self.calls = {}
        # Calls whose last frame the writer has not got: more than in `calls`, which a call leaves just before.
        self.open = set()
        self.window_bytes = p.WINDOW_BYTES
        self.payload_bytes_max = p.PAYLOAD_BYTES_MAX
        self.ended = on_ended

    def free(self, call):
        """Before a call's last frame is sent: the agent may use its id again as soon as it has that."""
        if self.calls.get(call.id) is call:
            del self.calls[call.id]
            self.logs.disown(call.id)
