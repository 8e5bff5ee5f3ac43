"""The runner: one connection to the agent after another, one function."""

import asyncio
import atexit
import os
import select
import signal
import socket
import sys
import time
import types
from _thread import start_new_thread

from . import VERSION, api
from . import protocol as p
from .call import Call
from .connection import Connection
from .contract import error_text
from .forked import STOP_SIGNALS, Forked
from .load import load
from .logs import Logs, adopt_handlers, capture_output
from .loop import Loop
from .threads import Threads
from .writer import wait_for

# Tries to connect come in this share of the time that the agent has been away: one that was restarted serves again at once.
RECONNECT_SHARE = 0.02
RECONNECT_S_MIN = 0.02
RECONNECT_S_MAX = 0.2
EXIT_REFUSED = 69
FLUSH_S = 1.0


class Runner:
    def __init__(self, socket_path, handler):
        self._socket_path = socket_path
        self._handler = handler
        self.logs = Logs()
        self.connection = None
        self.state = "empty"
        self._fn = self._release = ""
        self._error = ""
        self._initialised = False
        self._init = None
        self._concurrency = 1
        self._draining = False
        self._welcomed = False
        self._away_since = time.monotonic()
        self._wait_s = 0.0
        self._decoder = None
        self._read_at = 0.0
        self._engine = None
        self._loop_wake = None
        self._streams = capture_output(self.logs)
        self._forked = Forked(self, self._streams)

    # --- life ---

    def main(self):
        """Serves for ever."""
        while self._init is None:
            self._poll()
        contract = self._load(self._init)
        if contract is None:
            while True:
                self._poll()
        if contract.is_async:
            self._engine = Loop(contract, self._forked)
            self._engine.run(self._serve_loop)
        else:
            self._engine = Threads(contract, self._concurrency, self._poll, self._forked)
            self._ready()
            self._engine.run()

    def _load(self, init):
        try:
            contract = load(init["dir"], init["entry"], self._fn, self._release)
        except BaseException as error:
            self.state = "failed"
            self._error = error_text(error)
            contract = None
        else:
            adopt_handlers(self.logs)
        self._end_partials()
        if contract is None:
            self._say_ready()
        return contract

    def _ready(self):
        self.state = "ready"
        self._say_ready()

    async def _serve_loop(self, engine):
        """Reads by the event loop."""
        loop = asyncio.get_running_loop()
        self.logs.flush_soon = engine.flush_soon
        self._loop_wake = loop
        self._ready()
        while True:
            if self.connection is None:
                await loop.run_in_executor(None, self._connect_once)
                if self.connection is None:
                    continue
            connection = self.connection
            engine.attach(connection)
            connection.sock.setblocking(False)
            gone = asyncio.Event()

            def readable(connection=connection, gone=gone):
                try:
                    self._read(connection)
                except BlockingIOError:
                    return
                engine.flush_soon()
                if self.connection is not connection:
                    gone.set()

            loop.add_reader(connection.sock, readable)
            readable()
            await gone.wait()

    # --- connection ---

    def _poll(self):
        """Waits for frames and deals with them; connects when there is no connection."""
        connection = self.connection
        if connection is None:
            self._connect_once()
        else:
            self._read(connection)

    def _connect_once(self):
        time.sleep(self._wait_s)
        if self._forked.is_set():
            self._forked.leave()
        if self._draining:
            self._exit(0)
        away_s = time.monotonic() - self._away_since
        self._wait_s = min(max(away_s * RECONNECT_SHARE, RECONNECT_S_MIN), RECONNECT_S_MAX)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(self._socket_path)
        except OSError:
            sock.close()
            return
        self._decoder = p.Decoder()
        self._welcomed = False
        connection = Connection(sock, self.logs, self._call_ended)
        hello = {
            "protocol": {"min": 1, "max": 1},
            "handler": self._handler,
            "runtime": "python3",
            "runner": VERSION,
            "pid": os.getpid(),
            "state": self.state,
        }
        if self._initialised:
            hello.update(fn=self._fn, release=self._release)
        connection.writer.append(p.message(p.HELLO, hello))
        connection.writer.flush()
        self.connection = connection
        if not wait_for(sock, select.POLLIN, p.GREETING_S):
            self._lost(f"the agent sent no WELCOME within {p.GREETING_S:.0f} s")

    def _read(self, connection):
        try:
            frames = self._decoder.read(connection.sock)
        except BlockingIOError:
            raise
        except (OSError, p.ProtocolError) as error:
            if self._forked.is_set():
                self._forked.leave()
            self._lost(str(error))
            return
        if frames is None:
            self._lost(None)
            return
        self._read_at = time.monotonic()
        try:
            for kind, flags, call_id, payload in frames:
                if kind == p.REQUEST:
                    self._request(connection, flags, call_id, payload)
                else:
                    self._frame(connection, kind, flags, call_id, payload)
        except p.ProtocolError as error:
            self._lost(str(error))
        if connection.writer and self.state != "loading":
            # Answers to pings, refusals and windows; what calls answer follows by itself.
            connection.writer.flush()

    def _lost(self, why):
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if self._welcomed:
            self._away_since, self._wait_s = time.monotonic(), 0.0
        self.logs.attach(None)
        connection.writer.close()
        if self._loop_wake is not None:
            self._loop_wake.remove_reader(connection.sock)
        connection.sock.close()
        for call in list(connection.calls.values()):
            if self._engine is not None and not call.cancelled:
                # Before the call counts as ended: one that has ended is not interrupted.
                self._engine.cancel(call)
            call.lose()
        connection.calls.clear()
        connection.open.clear()
        if why is not None and self._welcomed:
            sys.__stderr__.write(f"shoal runner: connection closed: {why}\n")
            sys.__stderr__.flush()
        if self._draining:
            self._exit(0)

    # --- frames ---

    def _request(self, connection, flags, call_id, payload):
        if not self._welcomed:
            raise p.ProtocolError("FORBIDDEN", "a request before WELCOME")
        deadline_ms, head, body = p.parse_request(payload)
        calls = connection.calls
        if call_id == 0 or call_id in calls:
            raise p.ProtocolError("FORBIDDEN", f"a request with the id {call_id}, which is in use")
        if self._draining:
            self._refuse(connection, call_id, p.KIND_NOT_READY, "the handler is shutting down")
            return
        if self.state != "ready":
            raise p.ProtocolError("FORBIDDEN", "a request before READY")
        if len(calls) >= self._concurrency:
            text = f"the handler has {self._concurrency} calls in flight already"
            self._refuse(connection, call_id, p.KIND_LIMIT, text)
            return
        call = Call(call_id, self._read_at, deadline_ms, head, body, connection)
        calls[call_id] = call
        connection.open.add(call)
        if flags & p.END:
            self._engine.submit(call)
        else:
            call.begin_body(body)

    @staticmethod
    def _refuse(connection, call_id, kind, text):
        connection.writer.append(p.text_frame(p.ERROR, call_id, kind, text, p.TEXT_BYTES_MAX))

    def _frame(self, connection, kind, flags, call_id, payload):
        if kind == p.PING:
            if len(payload) > p.PING_BYTES_MAX:
                raise p.ProtocolError("PAYLOAD_TOO_LONG", "PING")
            connection.writer.append(p.frame(p.PONG, call_id, payload))
            return
        if kind == p.WELCOME:
            self._welcome(connection, payload)
            return
        if kind not in p.KNOWN:
            return
        if not self._welcomed:
            raise p.ProtocolError("FORBIDDEN", f"a frame of type {kind} before WELCOME")
        if kind == p.DATA:
            self._data(connection.calls.get(call_id), payload, flags & p.END)
        elif kind == p.WINDOW:
            p.need(len(payload) >= 4, "WINDOW")
            call = connection.calls.get(call_id)
            if call is not None:
                call.grant(p.unpack_u32(payload)[0])
        elif kind == p.CANCEL:
            p.need(len(payload) >= 1, "CANCEL")
            self._cancel(connection.calls.get(call_id))
        elif kind == p.INIT:
            self._accept_init(p.parse_message(payload))
        elif kind == p.SHUTDOWN:
            self.shutdown()
        elif kind != p.PONG:
            raise p.ProtocolError("FORBIDDEN", f"a frame of type {kind} sent to a runner")

    def _welcome(self, connection, payload):
        message = p.parse_message(payload)
        if self._welcomed:
            raise p.ProtocolError("FORBIDDEN", "a second WELCOME")
        if message.get("protocol") != 1:
            reason = message.get("error", "it shares no version of the protocol")
            sys.__stderr__.write(f"shoal runner: the agent refuses this runner: {reason}\n")
            sys.__stderr__.flush()
            os._exit(EXIT_REFUSED)
        self._welcomed = True
        connection.window_bytes = bounded(message.get("windowBytes"), 65_536, 1_048_576, p.WINDOW_BYTES)
        payload_max = bounded(message.get("payloadBytesMax"), 131_072, p.PAYLOAD_BYTES_MAX, p.PAYLOAD_BYTES_MAX)
        connection.payload_bytes_max = payload_max
        self._say_ready()
        self.logs.attach(connection.writer)

    def _accept_init(self, message):
        if self._initialised:
            raise p.ProtocolError("FORBIDDEN", "a second INIT")
        self._initialised = True
        self.state = "loading"
        self._fn = str(message.get("fn", ""))
        self._release = str(message.get("release", ""))
        concurrency = message.get("concurrency")
        if isinstance(concurrency, int) and concurrency >= 1:
            self._concurrency = concurrency
        env = message.get("env")
        if isinstance(env, dict):
            os.environ.update({str(name): str(value) for name, value in env.items()})
        self._init = {"dir": str(message.get("dir", "/shoal/fn")), "entry": message.get("entry")}

    def _data(self, call, payload, last):
        if call is None:
            return
        if not call.receive(payload, last):
            if call.parts_bytes > p.BODY_BYTES_MAX and not call.ended:
                call.fail(p.KIND_LIMIT, f"a request body above {p.BODY_BYTES_MAX} bytes")
        elif not call.ended:
            self._engine.submit(call)

    def _cancel(self, call):
        if call is None:
            return
        if call.body is None:
            call.cancelled = True
            call.fail(p.KIND_CANCELLED, "cancelled")
        elif self._engine is not None:
            self._engine.cancel(call)

    def _call_ended(self, call):
        call.connection.open.discard(call)
        if self._draining:
            self.shutdown()

    def _say_ready(self):
        connection = self.connection
        if connection is None or not self._welcomed or self.state not in ("ready", "failed"):
            return
        answer = {"ok": True}
        if self.state == "failed":
            answer = {"ok": False, "error": p.cut(self._error, p.TEXT_BYTES_MAX).decode()}
        connection.writer.append(p.message(p.READY, answer))
        connection.writer.flush()

    # --- end ---

    def shutdown(self):
        """Finishes the calls in flight, then exits 0."""
        self._draining = True
        connection = self.connection
        if connection is None or not connection.open:
            self._exit(0)

    def on_signal(self, *_):
        """Shuts down in a thread: the one that the signal interrupts may be writing an answer, or hold a lock that is needed."""
        try:
            start_new_thread(self.shutdown, ())
        except RuntimeError:
            self.shutdown()

    def _end_partials(self):
        for stream in self._streams:
            stream.end_partial()

    def _exit(self, code):
        self._end_partials()
        connection = self.connection
        if connection is not None:
            connection.writer.finish(FLUSH_S)
        atexit._run_exitfuncs()
        os._exit(code)


def bounded(value, least, most, otherwise):
    return value if isinstance(value, int) and least <= value <= most else otherwise


def main(arguments):
    """The program."""
    if arguments == ["--check"]:
        return
    # `from shoal import Response` in a function.
    module = types.ModuleType("shoal", api.__doc__)
    for name in ("Context", "Headers", "Request", "Response"):
        setattr(module, name, getattr(api, name))
    sys.modules["shoal"] = module
    runner = Runner(os.environ.get("SHOAL_SOCKET", "/shoal/s"), os.environ.get("SHOAL_HANDLER", ""))
    for number in STOP_SIGNALS:
        signal.signal(number, runner.on_signal)
    runner.main()
