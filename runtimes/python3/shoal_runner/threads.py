"""Runs a synchronous function: in the reading thread while it is quick, in a pool of threads when it is not.

The thread that reads the connection (the leader) calls the function itself: no hand-over, which is what costs in Python. A
monitor looks every 5 ms whether the leader is still in the call it was in the last time. Then the monitor takes the lead, the old
leader finishes its call as a worker, and calls go to worker threads, at most one per call in flight; one that is at a call of a
lost connection does not count. When calls have been quick for a while, the leader calls the function itself again. A leader that
there is no need of as a worker ends.

Where no more threads can be started (the handler's limit of processes) calls wait for the workers that there are.
"""

import contextvars
import ctypes
import os
import queue
import sys
import threading
import time
import traceback
from collections import deque

from . import protocol as p
from .call import CallCancelled, Uninterrupted, cancel_lock, send_chunk
from .contract import BadAnswer, chunk_bytes, error_text, parts_of
from .logs import current_call
from .own_context import own_decimal
from .start_thread import start_thread
from .writer import WRITTEN_TOGETHER

MONITOR_S = 0.005
# A leader whose calls take longer than this on average gives them to workers.
LEADER_CALL_S = 0.000_3
# So many calls of workers in a row that are quicker than this, and the leader calls the function itself again...
WORKER_CALL_S = 0.001
STREAK_MIN = 512
# ...twice as many each time that this was soon found to be wrong.
STREAK_MAX = 65_536
SOON_S = 1.0
# EX_SOFTWARE of sysexits.h.
EXIT_CRASHED = 70
# Samples without work after which the monitor sleeps until there is some.
MONITOR_IDLE_SAMPLES = 50

_raise_in_thread = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in_thread.argtypes = (ctypes.c_ulong, ctypes.py_object)
# NULL takes back what has not been raised yet.
_NOTHING = ctypes.py_object()


class Threads:
    def __init__(self, contract, size, poll, forked):
        """`poll()` waits for frames and deals with them; it gives calls to `submit`."""
        self._contract = contract
        self._size = size
        self._poll = poll
        self._forked = forked
        self._pending = deque()
        self._jobs = queue.SimpleQueue()
        # Holds one token while the leader is in a call. Whoever pops it leads: list.pop is atomic.
        self._baton = []
        self._inline = True
        self._count = 0
        self._streak = 0
        self._streak_needed = STREAK_MIN
        self._inline_since = 0.0
        self._workers = 0
        # How many calls workers have or are to get: of the newest connection, and of lost ones, which may never come back.
        self._connection = None
        self._with_workers = 0
        self._orphans = 0
        self._lock = threading.Lock()
        # What the function set as it was loaded. Each call gets a copy: what one sets is not the next one's.
        self._context = contextvars.copy_context()
        self._monitor_wake = threading.Event()
        self._monitor_parked = False
        self._monitor = False
        self.submit = self._pending.append

    # --- leading ---

    def run(self):
        """Leads in this thread; works on when another one has taken the lead. Does not return: the process ends with its thread."""
        self._inline = self._start_monitor()
        self._lead()
        with self._lock:
            self._workers += 1
        self._work()

    def _lead(self):
        """Reads, and runs or hands out calls, until the lead is taken away."""
        try:
            self._serve()
        except BaseException:
            # Nobody would read the connection any more: better no process than a deaf one.
            traceback.print_exc(file=sys.__stderr__)
            os._exit(EXIT_CRASHED)

    def _serve(self):
        pending = self._pending
        poll = self._poll
        while True:
            if not pending:
                poll()
            elif not self._inline:
                self._hand_out()
            elif not self._run_inline():
                return

    def _run_inline(self):
        """Runs what is pending in this thread; False when the lead was lost meanwhile."""
        pending = self._pending
        baton = self._baton
        ident = threading.get_ident()
        new_context = self._context.copy
        started = time.perf_counter()
        count = 0
        connection = None
        while pending and self._inline:
            call = pending.popleft()
            connection = call.connection
            baton.append(True)
            self._count += 1
            # Behind the count: a monitor that parks looks at that last, so one of the two sees the other.
            if self._monitor_parked:
                self._monitor_wake.set()
            try:
                new_context().run(self._call, call, ident)
            except CallCancelled:
                # Meant for a function that had just returned; nobody else may have answered for it.
                call.fail(p.KIND_CANCELLED, "cancelled")
            try:
                baton.pop()
            except IndexError:
                connection.writer.flush()
                return False
            count += 1
            if pending and count % WRITTEN_TOGETHER == 0:
                connection.writer.flush()
        if connection is not None:
            connection.writer.flush()
        if count and (time.perf_counter() - started) / count > LEADER_CALL_S:
            self._slow()
        return True

    def _hand_out(self):
        pending = self._pending
        if self._streak > self._streak_needed:
            self._streak = 0
            self._inline = True
            self._inline_since = time.monotonic()
            self._inline = self._start_monitor()
            return
        while pending:
            call = pending.popleft()
            if self._needs_worker(call):
                self._start_worker()
            if self._workers:
                self._jobs.put(call)
            else:
                self._leave_workers(call)
                call.fail(p.KIND_LIMIT, "no thread could be started for the call")
                call.connection.writer.flush()

    def _slow(self):
        soon = time.monotonic() - self._inline_since < SOON_S
        self._streak_needed = min(self._streak_needed * 2, STREAK_MAX) if soon else STREAK_MIN
        self._streak = 0
        self._inline = False

    # --- working ---

    def _needs_worker(self, call):
        """Counts a call that workers are to get; True when there is none for it and there may be one more."""
        with self._lock:
            if call.connection is not self._connection:
                self._connection = call.connection
                self._orphans += self._with_workers
                self._with_workers = 0
            self._with_workers += 1
            return self._workers < self._orphans + min(self._size, self._with_workers)

    def _leave_workers(self, call):
        with self._lock:
            if call.connection is self._connection:
                self._with_workers -= 1
            else:
                self._orphans -= 1

    def _start_worker(self):
        """Adds a worker when the system lets us."""
        with self._lock:
            self._workers += 1
        if not start_thread("shoal-call", self._work):
            with self._lock:
                self._workers -= 1

    def _becomes_worker(self):
        """True: the thread that has lost the lead is to work on. More than calls need would be one more with each slow call."""
        with self._lock:
            needed = self._workers < max(1, self._orphans + min(self._size, self._with_workers))
            self._workers += needed
            return needed

    def _work(self):
        ident = threading.get_ident()
        new_context = self._context.copy
        while True:
            call = self._jobs.get()
            started = time.perf_counter()
            try:
                new_context().run(self._call, call, ident)
            except CallCancelled:
                # Meant for a function that had just returned; nobody else may have answered for it.
                call.fail(p.KIND_CANCELLED, "cancelled")
            self._leave_workers(call)
            self._streak = self._streak + 1 if time.perf_counter() - started < WORKER_CALL_S else 0
            call.connection.writer.flush()

    # --- monitoring ---

    def _start_monitor(self):
        """True when there is one: nothing may be called by the leader unwatched."""
        if not self._monitor:
            self._monitor = True
            self._monitor = start_thread("shoal-monitor", self._watch)
        return self._monitor

    def _watch(self):
        last = -1
        idle = 0
        while self._inline:
            time.sleep(MONITOR_S)
            count = self._count
            if count != last:
                last, idle = count, 0
                continue
            if not self._baton:
                idle += 1
                if idle > MONITOR_IDLE_SAMPLES:
                    self._park(count)
                    idle = 0
                continue
            try:
                self._baton.pop()
            except IndexError:
                continue
            # The leader has been in one call since the last look: lead in its place.
            self._slow()
            self._monitor = False
            self._lead()
            # Another monitor has taken over from this one.
            if self._becomes_worker():
                self._work()
            return
        self._monitor = False

    def _park(self, count):
        self._monitor_wake.clear()
        self._monitor_parked = True
        if self._count == count:
            self._monitor_wake.wait()
        self._monitor_parked = False

    # --- one call ---

    def _call(self, call, ident):
        current_call.set(call)
        contract = self._contract
        try:
            call.thread = ident
            if call.cancelled:
                raise CallCancelled
            own_decimal()
            result = contract.function(*contract.arguments(call))
            if hasattr(result, "__await__"):
                result = _await(result)
            status, head, body = parts_of(result, contract.kind)
            if type(body) is bytes:
                call.thread = None
                if call.cancelled:
                    self._settle_cancelled(call, ident)
                else:
                    call.answer(status, head, body)
            else:
                _stream(call, status, head, body)
        except CallCancelled:
            call.fail(p.KIND_CANCELLED, "cancelled")
        except BaseException as error:
            call.thread = None
            if call.cancelled:
                self._settle_cancelled(call, ident)
            elif isinstance(error, BadAnswer):
                call.fail(p.KIND_BAD_ANSWER, f"the function returned {error}")
            else:
                self._failed(call, error)
        finally:
            call.thread = None
            if call.interrupted:
                # An exception that was meant for the function and came too late must not hit the next call.
                with cancel_lock:
                    _raise_in_thread(ident, _NOTHING)
            if self._forked.is_set():
                self._forked.leave()

    def _settle_cancelled(self, call, ident):
        with cancel_lock:
            _raise_in_thread(ident, _NOTHING)
        call.fail(p.KIND_CANCELLED, "cancelled")

    @staticmethod
    def _failed(call, error):
        text = error_text(error)
        if not call.fail(p.KIND_FUNCTION, text):
            call.connection.logs.line(call.log_id, p.ERROR_LEVEL, text)

    def cancel(self, call):
        """Throws `CallCancelled` into the function. One that waits inside the system sees it when it comes back."""
        call.cancel()
        try:
            self._pending.remove(call)
        except ValueError:
            pass
        else:
            call.fail(p.KIND_CANCELLED, "cancelled")
            return
        with cancel_lock:
            thread = call.thread
            if thread is not None and not call.ended and not call.interrupted:
                call.interrupted = True
                _raise_in_thread(thread, CallCancelled)


def _await(awaitable):
    """Runs what a synchronous function returned unawaited."""
    import asyncio

    async def wait():
        return await awaitable

    return asyncio.run(wait())


def _stream(call, status, head, parts):
    """Sends the parts of a body as the caller takes them."""
    if not hasattr(parts, "__next__"):
        raise BadAnswer("an async generator from a function that is not async; write async def")
    uninterrupted = Uninterrupted(call)
    try:
        with uninterrupted:
            if not call.start(status, head):
                return
        for part in parts:
            data = chunk_bytes(part)
            if data:
                with uninterrupted:
                    if not send_chunk(call, data):
                        break
        with uninterrupted:
            if not call.cancelled:
                call.finish()
    finally:
        if hasattr(parts, "close"):
            parts.close()
    # Its place is free when the function has cleaned up.
    if call.cancelled:
        call.fail(p.KIND_CANCELLED, "cancelled")


