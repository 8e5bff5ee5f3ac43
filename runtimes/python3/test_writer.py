"""Frames on their way out, over a real socket. Run: python3 -m unittest"""

import logging
import random
import socket
import sys
import threading
import time
import types
import unittest
from unittest import mock

from shoal_runner import protocol as p
from shoal_runner.call import Call
from shoal_runner.connection import Connection
from shoal_runner.contract import Contract
from shoal_runner.logs import LogHandler, Logs, LogStream, _uninterrupted as uninterrupted, current_call
from shoal_runner.threads import Threads
from shoal_runner.writer import Writer


class Peer:
    """The other end of a connection; it notes the frames it gets."""

    def __init__(self):
        self.near, self._far = socket.socketpair(socket.AF_UNIX)
        self.frames = []
        self.broken = None
        self._reading = threading.Thread(target=self._read, daemon=True)

    def __enter__(self):
        self._reading.start()
        return self

    def __exit__(self, *_):
        self.near.close()
        self._reading.join(5)
        self._far.close()

    def take_little_at_once(self):
        """Writes are split from here on."""
        self.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)

    def _read(self):
        decoder = p.Decoder()
        try:
            while (frames := decoder.read(self._far)) is not None:
                self.frames.extend((kind, flags, call_id, bytes(payload)) for kind, flags, call_id, payload in frames)
        except p.ProtocolError as error:
            self.broken = error

    def wait_for(self, found):
        until = time.monotonic() + 10
        while not found(self.frames):
            if self.broken or time.monotonic() > until:
                raise AssertionError(f"not found in {len(self.frames)} frames; {self.broken}")
            time.sleep(0.001)

    def body_of(self, call_id):
        return b"".join(payload for kind, _, at, payload in self.frames if kind == p.DATA and at == call_id)


class WriterTest(unittest.TestCase):
    def test_frames_of_all_sizes_from_many_threads_arrive_whole(self):
        numbers = random.Random(6)
        bodies = [numbers.randbytes(numbers.choice((10, 20_000, 300_000))) for _ in range(120)]
        with Peer() as peer:
            writer = Writer(peer.near)
            peer.take_little_at_once()

            def write(first):
                for at in range(first, len(bodies), 4):
                    for part in range(0, len(bodies[at]), 131_072):
                        view = memoryview(bodies[at])[part : part + 131_072]
                        writer.append_data(p.data_prefix(at, len(view), 0), view)
                        writer.append(p.frame(p.PING, 0, b"1234"))
                        writer.flush()

            threads = [threading.Thread(target=write, args=(first,)) for first in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            total = sum(map(len, bodies))
            peer.wait_for(lambda frames: sum(len(frame[3]) for frame in frames if frame[0] == p.DATA) >= total)
            for at, body in enumerate(bodies):
                self.assertTrue(peer.body_of(at) == body, f"body {at}")
            writer.close()

    def test_a_cancel_leaves_no_frame_half_written_wherever_it_strikes(self):
        # The threads are to overtake each other everywhere.
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(0.000_05)
        numbers = random.Random(7)
        logger = logging.Logger("function")
        part = numbers.randbytes(60_000)

        def parts():
            while True:
                print("a line")
                logger.warning("another")
                yield part

        with Peer() as peer:
            logs = Logs()
            logger.addHandler(LogHandler(logs))
            connection = Connection(peer.near, logs, lambda call: None)
            peer.take_little_at_once()
            logs.attach(connection.writer)
            contract = Contract(lambda request, context: parts(), "native", "f", "r")
            threads = Threads(contract, 1, None, types.SimpleNamespace(is_set=lambda: False))

            def run(call):
                threads._call(call, threading.get_ident())
                connection.writer.flush()

            shielded = mock.patch.object(logging.Logger, "handle", uninterrupted(logging.Logger.handle))
            with mock.patch("sys.stdout", LogStream(logs, p.INFO, sys.stdout)), shielded:
                for call_id in range(1, 300):
                    call = Call(call_id, 0.0, 0, b"GET\n/\n", b"", connection)
                    call.send_credit = numbers.choice((100_000, 2_000_000))
                    running = threading.Thread(target=run, args=(call,))
                    running.start()
                    time.sleep(numbers.random() * 0.004)
                    threads.cancel(call)
                    # What the agent has taken meanwhile.
                    for _ in range(numbers.randrange(20)):
                        call.grant(50_000)
                    running.join(5)
                    self.assertFalse(running.is_alive(), "it has not seen that it is cancelled")
                    peer.wait_for(lambda frames: any(frame[0] == p.ERROR for frame in frames))
                    kinds = [frame[0] for frame in peer.frames]
                    self.assertNotIn(p.DATA, kinds[kinds.index(p.ERROR) :], "the body goes on behind the end of its call")
                    body = peer.body_of(call_id)
                    self.assertTrue(body == (part * (len(body) // len(part) + 1))[: len(body)])
                    peer.frames.clear()
            connection.writer.close()

    def test_a_cancel_that_strikes_as_the_function_logs_leaves_no_lock_of_logging_held(self):
        class Struck(LogHandler):
            def acquire(self):
                super().acquire()
                # At its end Python itself takes the locks of handlers.
                if current_call.get() is not None:
                    threads.cancel(current_call.get())

        logger = logging.Logger("function")
        shielded = mock.patch.object(logging.Logger, "handle", uninterrupted(logging.Logger.handle))
        with Peer() as peer, shielded:
            logs = Logs()
            handler = Struck(logs)
            logger.addHandler(handler)
            connection = Connection(peer.near, logs, lambda call: None)
            contract = Contract(lambda request, context: logger.warning("cancelled here"), "native", "f", "r")
            threads = Threads(contract, 1, None, types.SimpleNamespace(is_set=lambda: False))
            call = Call(1, 0.0, 0, b"GET\n/\n", b"", connection)
            running = threading.Thread(target=lambda: threads._call(call, threading.get_ident()))
            running.start()
            running.join(5)
            connection.writer.flush()
            peer.wait_for(lambda frames: [frame[3][0] for frame in frames if frame[0] == p.ERROR] == [p.KIND_CANCELLED])
            self.assertTrue(handler.lock.acquire(timeout=1))
            connection.writer.close()


if __name__ == "__main__":
    unittest.main()
