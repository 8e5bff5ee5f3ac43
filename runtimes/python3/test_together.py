"""How calls that come together are answered, over a real socket. Run: python3 -m unittest"""

import asyncio
import socket
import time
import types
import unittest

from shoal_runner import protocol as p
from shoal_runner.api import Context
from shoal_runner.call import Call
from shoal_runner.connection import Connection
from shoal_runner.contract import Contract
from shoal_runner.logs import Logs
from shoal_runner.loop import Loop
from shoal_runner.threads import Threads

NOT_FORKED = types.SimpleNamespace(is_set=lambda: False)


class TogetherTest(unittest.TestCase):
    """Of twelve calls, each sees how many have been answered before it: not all wait for the last."""

    def setUp(self):
        near, self._far = socket.socketpair(socket.AF_UNIX)
        self._far.setblocking(False)
        self._connection = Connection(near, Logs(), lambda call: None)
        self._decoder = p.Decoder()
        self._come = 0
        self.seen = []
        self.calls = [Call(number, 0.0, 0, b"GET\n/\n", b"", self._connection) for number in range(1, 13)]
        self.addCleanup(near.close)
        self.addCleanup(self._far.close)

    def look(self):
        try:
            self._come += len(self._decoder.read(self._far))
        except BlockingIOError:
            pass
        self.seen.append(self._come)

    def test_by_a_thread(self):
        threads = Threads(Contract(self.look, "classic", "f", "r"), 1, None, NOT_FORKED)
        for call in self.calls:
            threads.submit(call)
        threads._run_inline()
        self.look()
        self.assertEqual(self.seen, [0] * 4 + [4] * 4 + [8] * 4 + [12])

    def test_by_the_event_loop(self):
        async def function():
            self.look()

        async def serve(engine):
            engine.attach(self._connection)
            for call in self.calls:
                engine.submit(call)
            while len(self.seen) < len(self.calls):
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.001)

        Loop(Contract(function, "classic", "f", "r"), NOT_FORKED).run(serve)
        self.look()
        self.assertEqual(self.seen, [0] * 4 + [4] * 4 + [8] * 4 + [12])


class DeadlineTest(unittest.TestCase):
    def test_what_is_left_counts_from_when_the_call_was_read(self):
        call = Call(1, time.monotonic() - 0.4, 1_000, b"GET\n/\n", b"", types.SimpleNamespace(window_bytes=0))
        self.assertAlmostEqual(Context(call, "f", "r").remaining_ms(), 600, delta=100)


if __name__ == "__main__":
    unittest.main()
