"""How the runner ends, and that no answer is lost by it. Run: python3 -m unittest"""

import fcntl
import os
import random
import resource
import socket
import struct
import threading
import types
import unittest
from unittest import mock

from shoal_runner import protocol as p
from shoal_runner.connection import Connection
from shoal_runner.runner import Runner
from shoal_runner.writer import Writer
from test_writer import Peer

REQUEST = struct.pack(">IH", 0, 6) + b"POST\n\n"


class EndNoted(Runner):
    """Notes how many frames are ready to be written when it would end."""

    ends = ()

    def _exit(self, code):
        self.ends += (len(self.connection.writer),)


def runner_of(kind, sock):
    """A runner whose function is loaded and that has the calls 1 and 2 in flight: it, and the calls."""
    with mock.patch("shoal_runner.runner.capture_output", lambda logs: ()), mock.patch("shoal_runner.runner.Forked"):
        runner = kind("", "")
    calls = []
    runner._engine = types.SimpleNamespace(submit=calls.append)
    runner._welcomed, runner.state, runner._concurrency = True, "ready", 2
    runner.connection = Connection(sock, runner.logs, runner._call_ended)
    for call_id in (1, 2):
        runner._request(runner.connection, p.END, call_id, REQUEST)
    return runner, calls


class DrainTest(unittest.TestCase):
    def test_an_answer_that_is_about_to_be_written_is_waited_for(self):
        for is_told_first in (True, False):
            with Peer() as peer:
                runner, (first, second) = runner_of(EndNoted, peer.near)
                writer = runner.connection.writer
                append, held, let_go = writer.append, threading.Event(), threading.Event()

                def hold(frame, append=append, held=held, let_go=let_go):
                    held.set()
                    let_go.wait(5)
                    append(frame)

                writer.append = hold
                answering = threading.Thread(target=first.answer, args=(200, b"", b"first"))
                answering.start()
                self.assertTrue(held.wait(5))
                writer.append = append
                if is_told_first:
                    runner.shutdown()
                second.answer(200, b"", b"second")
                if not is_told_first:
                    runner.shutdown()
                early = runner.ends
                let_go.set()
                answering.join(5)
                self.assertEqual((early, runner.ends), ((), (2,)))

    def test_calls_that_are_lost_are_not_waited_for(self):
        with Peer() as peer:
            runner, _ = runner_of(EndNoted, peer.near)
            lost = runner.connection
            runner._engine.cancel = lambda call: None
            runner._lost(None)
            runner.connection = lost
            runner.shutdown()
            self.assertEqual(runner.ends, (0,))

    def test_a_signal_does_not_keep_the_thread_it_interrupts_from_writing(self):
        ended = threading.Event()
        with Peer() as peer, mock.patch("shoal_runner.runner.atexit"), mock.patch("os._exit", lambda code: ended.set()):
            runner, calls = runner_of(Runner, peer.near)
            writer = runner.connection.writer
            for call in calls:
                call.answer(200, b"", b"")
            with writer._lock:
                runner.on_signal()
                self.assertFalse(ended.wait(0.05))
            self.assertTrue(ended.wait(5))
            peer.wait_for(lambda frames: [frame[2] for frame in frames] == [1, 2])


class SlowSocket:
    """Takes what it is given when it may."""

    def __init__(self):
        self.entered, self.let_go, self.sent = threading.Event(), threading.Event(), b""

    def setsockopt(self, *_):
        pass

    def send(self, data, _flags):
        self.entered.set()
        self.let_go.wait(5)
        self.sent += data
        return len(data)


class FinishTest(unittest.TestCase):
    def test_what_another_thread_is_just_writing_is_waited_for(self):
        sock = SlowSocket()
        writer = Writer(sock)
        writer.append(b"answer")
        writing = threading.Thread(target=writer.flush)
        writing.start()
        self.assertTrue(sock.entered.wait(5))
        seen = []

        def finish():
            writer.finish(5)
            seen.append(sock.sent)

        finishing = threading.Thread(target=finish)
        finishing.start()
        finishing.join(0.05)
        sock.let_go.set()
        finishing.join(5)
        writing.join(5)
        self.assertEqual(seen, [b"answer"])

    def test_it_waits_for_no_agent_for_longer_than_it_is_told(self):
        with Peer() as peer:
            writer = Writer(peer.near)
            with writer._lock:
                writer.append(b"")
                writer.finish(0.01)


class ManyFilesTest(unittest.TestCase):
    def test_a_socket_with_a_high_number_is_written_to(self):
        least, most = 1_500, resource.getrlimit(resource.RLIMIT_NOFILE)
        if most[0] < least:
            resource.setrlimit(resource.RLIMIT_NOFILE, (least, most[1]))
            self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, most)
        body = random.Random(8).randbytes(3_000_000)
        with Peer() as peer:
            low, peer.near = peer.near, socket.socket(fileno=fcntl.fcntl(peer.near, fcntl.F_DUPFD_CLOEXEC, 1_100))
            low.close()
            writer = Writer(peer.near)
            peer.take_little_at_once()
            for at in range(0, len(body), 1_000_000):
                writer.append(p.frame(p.DATA, 1, body[at : at + 1_000_000]))
                writer.flush()
            peer.wait_for(lambda frames: peer.body_of(1) == body)
            writer.close()


if __name__ == "__main__":
    unittest.main()
