"""The Python runner's own tests: the shared vectors, and what needs neither an agent nor a socket. Run: python3 -m unittest"""

import io
import json
import os
import random
import threading
import types
import unittest

from shoal_runner import protocol as p
from shoal_runner.api import Headers, Request, Response, title_headers
from shoal_runner.call import CallCancelled
from shoal_runner.contract import BadAnswer, Contract, count_arguments, parts_of
from shoal_runner.logs import Logs, LogStream
from shoal_runner.threads import Threads, _stream as stream

VECTORS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "vectors")


def vectors(name):
    with open(os.path.join(VECTORS, name), encoding="utf-8") as file:
        return json.load(file)


class Pieces:
    """A socket that gives its bytes in pieces of sizes that `size()` says."""

    def __init__(self, data, size):
        self._data = memoryview(data)
        self._size = size

    def recv(self, limit):
        piece = self._data[: min(limit, self._size())]
        self._data = self._data[len(piece) :]
        return bytes(piece)

    def recv_into(self, room):
        piece = self.recv(len(room))
        room[: len(piece)] = piece
        return len(piece)


def frames_of(data, size):
    decoder = p.Decoder()
    source = Pieces(data, size)
    while (frames := decoder.read(source)) is not None:
        yield from frames


class FramesTest(unittest.TestCase):
    def test_vectors_are_read_however_they_are_split(self):
        found = vectors("frames.json")
        self.assertGreater(len(found), 20)
        expected = []
        stream = b""
        for vector in found:
            data = bytes.fromhex(vector["hex"])
            stream += data
            expected.append((getattr(p, vector["type"]), int(vector["end"]), vector["id"], data[12:]))
        numbers = random.Random(3)
        for _ in range(50):
            seen = list(frames_of(stream, lambda: numbers.choice((1, 5, 12, 13, 100, 5_000))))
            self.assertEqual(seen, expected)

    def test_large_data_is_read_however_it_is_split(self):
        numbers = random.Random(5)
        bodies = [numbers.randbytes(size) for size in (16_385, 300_000, 100, 16_384, 1_048_576)]
        expected = [(p.DATA, at & 1, at, body) for at, body in enumerate(bodies)] + [(p.PING, 0, 0, b"")]
        stream = b"".join(p.frame(kind, call_id, body, flags) for kind, flags, call_id, body in expected)
        for sizes in ((1_000,), (262_144,), (11, 12, 13, 20_000), (16_397,), (len(stream),)):
            self.assertEqual(list(frames_of(stream, lambda sizes=sizes: numbers.choice(sizes))), expected)

    def test_requests_are_split(self):
        for vector in vectors("frames.json"):
            if vector["type"] != "REQUEST":
                continue
            fields = vector["fields"]
            deadline_ms, head, body = p.parse_request(bytes.fromhex(vector["hex"])[12:])
            method, path, query, *headers = p.split_head(head)
            self.assertEqual(
                (deadline_ms, method, path, query, headers, body.hex()),
                (
                    fields["deadlineMs"],
                    fields["method"],
                    fields["path"],
                    fields["query"],
                    fields.get("headers", []),
                    fields.get("bodyHex", ""),
                ),
                vector["name"],
            )

    def test_vectors_are_written(self):
        written = 0
        for vector in vectors("frames.json"):
            fields = vector["fields"]
            body = bytes.fromhex(fields.get("bodyHex", ""))
            flags = p.END if vector["end"] else 0
            kind = vector["type"]
            if kind == "RESPONSE":
                head = "\n".join(fields.get("headers", [])).encode()
                data = p.response(vector["id"], fields["status"], head, body, flags)
            elif kind == "WINDOW":
                data = p.window(vector["id"], fields["bytes"])
            elif kind in ("ERROR", "LOG"):
                first = fields.get("kind", fields.get("level"))
                data = p.text_frame(getattr(p, kind), vector["id"], first, fields["text"], p.TEXT_BYTES_MAX)
            elif kind in ("DATA", "PONG"):
                data = p.frame(getattr(p, kind), vector["id"], body, flags)
            else:
                continue
            written += 1
            self.assertEqual(data.hex(), vector["hex"], vector["name"])
        self.assertGreater(written, 10)

    def test_local_errors_are_seen(self):
        seen = 0
        for vector in vectors("streams.json"):
            if not vector["local"] or vector["receiver"] != "runner" or vector["error"] is None:
                continue
            if vector["error"] not in ("FRAME_TOO_LARGE", "HEAD_MALFORMED") and "request" not in vector["name"]:
                # These need the connection: the conformance suite has them.
                continue
            seen += 1
            with self.assertRaises(p.ProtocolError) as raised:
                for kind, _flags, _id, payload in p.Decoder().feed(bytes.fromhex(vector["hex"])):
                    self.assertEqual(kind, p.REQUEST)
                    p.parse_request(payload)
            self.assertEqual(raised.exception.code, vector["error"], vector["name"])
        self.assertGreater(seen, 4)

    def test_random_bytes_end_in_a_protocol_error_or_in_silence(self):
        numbers = random.Random(4)
        for _ in range(300):
            try:
                for kind, _flags, _id, payload in frames_of(numbers.randbytes(2_000), lambda: numbers.randrange(1, 200)):
                    if kind == p.REQUEST:
                        p.parse_request(payload)
            except p.ProtocolError:
                pass

    def test_text_is_cut_between_characters(self):
        self.assertEqual(p.cut("abc", 3), b"abc")
        self.assertEqual(p.cut("aüüü", 6), "aü...".encode())


class ContractTest(unittest.TestCase):
    def test_arguments_are_counted(self):
        for function, count in (
            (lambda: 0, 0),
            (lambda a: a, 1),
            (lambda a, b=1: a, 2),
            (lambda *all: all, 2),
            (lambda a, *, key=1: a, 1),
            (lambda a, b, c=1: a, 2),
        ):
            self.assertEqual(count_arguments(function, 2), count)

    def test_async_is_seen(self):
        async def routine(request, context):
            pass

        async def generator(request, context):
            yield ""

        class Callable:
            async def __call__(self, request, context):
                pass

        for function, is_async in ((routine, True), (generator, True), (Callable(), True), (lambda a: a, False)):
            self.assertEqual(Contract(function, "native", "f", "r").is_async, is_async)

    def test_results(self):
        text, data = b"content-type\ntext/plain; charset=utf-8", b"content-type\napplication/json"
        for result, expected in (
            ("ü", (200, text, "ü".encode())),
            (None, (200, b"", b"")),
            (b"\xff", (200, b"content-type\napplication/octet-stream", b"\xff")),
            ({"a": 1}, (200, data, b'{"a": 1}')),
            ([1], (200, data, b"[1]")),
            (5, (200, data, b"5")),
            (("x", 404), (404, text, b"x")),
            (("x", 200, {"X-A": ["1", 2]}), (200, b"x-a\n1\nx-a\n2\n" + text, b"x")),
            (Response("x", 201, [("Content-Type", "a/b")]), (201, b"content-type\na/b", b"x")),
            (Response("x", content_type="a/b"), (200, b"content-type\na/b", b"x")),
        ):
            self.assertEqual(parts_of(result, "native"), expected)

    def test_bad_results(self):
        for result in (
            object(),
            ("x", 99),
            ("x", "200"),
            ("x", True),
            ("x", 200, {"a b": "c"}),
            ("x", 200, {"a": "c\nd"}),
            ("x", 200, {"a": "c" * 70_000}),
            ("x", 200, {}, 1),
        ):
            with self.assertRaises(BadAnswer):
                parts_of(result, "native")

    def test_bytes_that_are_no_text_pass_through_a_classic_function(self):
        class Call:
            body = b"\xff\x00a"
            head = b"POST\n\n"

        contract = Contract(lambda value: value, "classic", "f", "r")
        result = contract.function(*contract.arguments(Call))
        self.assertEqual(parts_of(result, "classic")[2], b"\xff\x00a")


class RequestTest(unittest.TestCase):
    LINES = ("POST", "/a", "x=1&x=2&y=", "x-one", "a", "x-one", "b", "content-type", "application/json")

    def test_fields(self):
        request = Request("\n".join(self.LINES).encode(), b'{"a": "\xc3\xbc"}')
        self.assertEqual((request.method, request.path, request.query), ("POST", "/a", "x=1&x=2&y="))
        self.assertEqual(request.args, {"x": "2", "y": ""})
        self.assertEqual(request.json(), {"a": "ü"})
        self.assertEqual(request.headers["X-One"], "a, b")
        self.assertIn("Content-Type", request.headers)
        self.assertIsNone(request.headers.get("none"))
        self.assertEqual(request.header_list[1], ("x-one", "b"))

    def test_repeated_cookies_are_one_list_of_cookies(self):
        lines = ("GET", "", "", "cookie", "a=1", "x-one", "1", "cookie", "b=2", "x-one", "2")
        self.assertEqual(Request("\n".join(lines).encode(), b"").headers, {"cookie": "a=1; b=2", "x-one": "1, 2"})
        self.assertEqual(title_headers(lines, 0)["Cookie"], "a=1; b=2")

    def test_title_case(self):
        self.assertEqual(title_headers(self.LINES, 3), {"X-One": "a, b", "Content-Type": "application/json", "Content-Length": "3"})

    def test_headers_take_any_case(self):
        self.assertEqual(Headers({"a": "1"}).get("A"), "1")


class SentLines:
    """A writer that notes what it is given."""

    congested = False

    def __init__(self):
        self.sent = []
        self.append = self.sent.append

    def __len__(self):
        return 0

    def flush(self):
        pass

    def clear(self):
        """The agent has taken all."""
        self.congested = False
        self.on_clear()


class OvertakenLogs(Logs):
    """What a line waits for comes when that has been found missing, and before the line is kept."""

    meanwhile = None

    def _keep(self, data):
        self.meanwhile()
        super()._keep(data)


class LogsTest(unittest.TestCase):
    def test_lines_that_cannot_be_sent_are_bounded_and_the_loss_is_told(self):
        logs = Logs()
        for at in range(p.LOG_LINES_MAX + 7):
            logs.line(0, p.INFO, str(at))
        writer = SentLines()
        logs.attach(writer)
        self.assertEqual(len(writer.sent), p.LOG_LINES_MAX + 1)
        self.assertIn(b"[7 log lines dropped]", writer.sent[0])
        self.assertTrue(writer.sent[1].endswith(b"7"))

    def test_a_line_that_is_kept_just_as_it_could_be_sent_is_sent(self):
        for why in ("there was no connection", "the agent took nothing"):
            logs, writer = OvertakenLogs(), SentLines()
            if why == "there was no connection":
                logs.meanwhile = lambda logs=logs, writer=writer: logs.attach(writer)
            else:
                logs.attach(writer)
                writer.congested = True
                logs.meanwhile = writer.clear
            logs.line(0, p.INFO, "kept")
            self.assertEqual([line[-4:] for line in writer.sent], [b"kept"], why)

    def test_lines_that_wait_are_nobodys_once_their_call_has_ended(self):
        for ends, expected in ((lambda logs: logs.disown(5), [0, 6]), (lambda logs: logs.attach(None), [0, 0])):
            logs, writer = Logs(), SentLines()
            logs.line(5, p.INFO, "own")
            logs.line(6, p.INFO, "another's")
            ends(logs)
            logs.attach(writer)
            self.assertEqual([p.call_id_of(line) for line in writer.sent], expected)
            self.assertTrue(writer.sent[0].endswith(b"own"))

    def test_functions_may_configure_their_output_as_that_of_any_program(self):
        logs, writer = Logs(), SentLines()
        logs.attach(writer)
        stream = LogStream(logs, p.INFO, None)
        stream.reconfigure(encoding="utf-8", errors="replace", newline="\n", line_buffering=True, write_through=True)
        self.assertEqual((stream.line_buffering, stream.write_through), (True, False))
        print("ü", file=stream)
        print("ä", file=io.TextIOWrapper(stream.detach(), "utf-8"), flush=True)
        self.assertEqual([line[-2:].decode() for line in writer.sent], ["ü", "ä"])


class ParkingThreads(Threads):
    """Its monitor parks just when the leader looks whether it has."""

    monitor = None
    _really_parked = False

    @property
    def _monitor_parked(self):
        seen = self._really_parked
        if self.monitor is None and threading.current_thread() is threading.main_thread():
            # It has looked at the count before the call began.
            self.monitor = threading.Thread(target=self._park, args=(0,), daemon=True)
            self.monitor.start()
            self.monitor.join(0.2)
        return seen

    @_monitor_parked.setter
    def _monitor_parked(self, value):
        self._really_parked = value

    def _call(self, call, ident):
        pass


class CancelledLate(Threads):
    def _call(self, call, ident):
        raise CallCancelled


class ThreadsTest(unittest.TestCase):
    def test_no_call_begins_unseen_by_a_monitor_that_parks(self):
        threads = ParkingThreads(None, 1, None, None)
        writer = types.SimpleNamespace(flush=lambda: None)
        threads.submit(types.SimpleNamespace(connection=types.SimpleNamespace(writer=writer)))
        self.assertTrue(threads._run_inline())
        threads.monitor.join(1)
        self.assertFalse(threads.monitor.is_alive(), "it sleeps while the call runs")

    def test_a_cancel_that_comes_as_a_call_reports_its_end_still_ends_it(self):
        failed = []
        writer = types.SimpleNamespace(flush=lambda: None)
        threads = CancelledLate(None, 1, None, None)
        threads.submit(
            types.SimpleNamespace(
                connection=types.SimpleNamespace(writer=writer),
                fail=lambda kind, text: failed.append(kind),
            )
        )
        self.assertTrue(threads._run_inline())
        self.assertEqual(failed, [p.KIND_CANCELLED])

    def test_a_cancelled_stream_ends_when_its_generator_has_cleaned_up(self):
        order = []

        def parts():
            try:
                while True:
                    yield b"x"
            finally:
                order.append("cleaned up")

        call = types.SimpleNamespace(
            cancelled=True,
            start=lambda status, head: True,
            offer=lambda data, waiter: True,
            ended=False,
            thread=None,
            connection=types.SimpleNamespace(writer=types.SimpleNamespace(flush=lambda: None)),
            fail=lambda kind, text: order.append(kind),
        )
        stream(call, 200, b"", parts())
        self.assertEqual(order, ["cleaned up", p.KIND_CANCELLED])


if __name__ == "__main__":
    unittest.main()
