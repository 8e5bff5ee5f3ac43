"""Runs an async function: one event loop reads the connection and runs all calls.

Calls are run by tasks that live on: one that has ended a call takes the next that waits, so calls that never suspend cost no
task and no turn of the loop. Before a task begins a call it wakes another for what still waits, in case this call suspends.
"""

import asyncio
import contextvars
import threading
import types
from collections import deque

from . import protocol as p
from .contract import BadAnswer, chunk_bytes, error_text, parts_of
from .logs import current_call
from .own_context import own_decimal
from .writer import WRITTEN_TOGETHER

_ENDED = object()


@types.coroutine
def _in_context(context, coroutine):
    """Runs a coroutine in a context of its own, by the task that awaits this."""
    steps = coroutine.__await__()
    # Most end in their first step, and the exception by which `send` says so costs more than the rest of this.
    awaited = context.run(next, steps, _ENDED)
    while awaited is not _ENDED:
        try:
            yield awaited
        except BaseException as error:
            try:
                awaited = context.run(steps.throw, error)
            except StopIteration:
                return
        else:
            awaited = context.run(next, steps, _ENDED)


class Loop:
    def __init__(self, contract, forked):
        self._contract = contract
        self._forked = forked
        self._loop = None
        self._thread = None
        # What the function set as it was loaded. Each call gets a copy: what one sets is not the next one's.
        self._context = contextvars.copy_context()
        self._scheduled = False
        self._writer = None
        self._pending = deque()
        self._idle = []
        self._waking = False
        # The loop itself holds tasks weakly.
        self._tasks = set()

    def run(self, serve):
        """Runs `serve(self)`, a coroutine function, in a new event loop. Does not return."""
        asyncio.run(self._main(serve))

    async def _main(self, serve):
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        await serve(self)

    def attach(self, connection):
        self._writer = connection.writer

    def flush_soon(self):
        """Writes at the end of the loop's turn."""
        if self._scheduled:
            return
        self._scheduled = True
        if threading.get_ident() == self._thread:
            self._loop.call_soon(self._flush)
        else:
            # What a thread of the function logs: the loop may be asleep.
            self._loop.call_soon_threadsafe(self._flush)

    def _flush(self):
        self._scheduled = False
        if self._writer is not None:
            self._writer.flush()

    def submit(self, call):
        self._pending.append(call)
        self._wake()

    def _wake(self):
        if self._waking:
            return
        self._waking = True
        if self._idle:
            self._idle.pop().set_result(None)
        else:
            self._tasks.add(self._loop.create_task(self._work()))

    async def _work(self):
        task = asyncio.current_task()
        pending = self._pending
        count = 0
        while True:
            self._waking = False
            while pending:
                call = pending.popleft()
                if call.ended:
                    continue
                if pending:
                    self._wake()
                call.task = task
                await _in_context(self._context.copy(), self._call(call))
                call.task = None
                if call.cancelled and hasattr(task, "uncancel"):
                    while task.cancelling():
                        task.uncancel()
                count += 1
                if pending and count % WRITTEN_TOGETHER == 0:
                    call.connection.writer.flush()
            wake = self._loop.create_future()
            self._idle.append(wake)
            await wake

    def cancel(self, call):
        call.cancelled = True
        if call.task is not None:
            call.task.cancel()
        else:
            # It still waits for its turn.
            call.fail(p.KIND_CANCELLED, "cancelled")
            self.flush_soon()

    async def _call(self, call):
        current_call.set(call)
        own_decimal()
        contract = self._contract
        try:
            result = contract.function(*contract.arguments(call))
            if hasattr(result, "__await__"):
                result = await result
            status, head, body = parts_of(result, contract.kind)
            if type(body) is bytes:
                call.answer(status, head, body)
            else:
                await self._stream(call, status, head, body)
        except BadAnswer as error:
            call.fail(p.KIND_BAD_ANSWER, f"the function returned {error}")
        except asyncio.CancelledError as error:
            if call.cancelled:
                call.fail(p.KIND_CANCELLED, "cancelled")
            else:
                call.fail(p.KIND_FUNCTION, error_text(error))
        except BaseException as error:
            text = error_text(error)
            if not call.fail(p.KIND_FUNCTION, text):
                call.connection.logs.line(call.log_id, p.ERROR_LEVEL, text)
        finally:
            if self._forked.is_set():
                self._forked.leave()
            self.flush_soon()

    async def _stream(self, call, status, head, parts):
        if not call.start(status, head):
            return
        if hasattr(parts, "__anext__"):
            try:
                async for part in parts:
                    await self._send(call, chunk_bytes(part))
            finally:
                if hasattr(parts, "aclose"):
                    await parts.aclose()
        else:
            try:
                for part in parts:
                    await self._send(call, chunk_bytes(part))
            finally:
                if hasattr(parts, "close"):
                    parts.close()
        call.finish()

    async def _send(self, call, data):
        if not data:
            return
        ready = asyncio.Event()
        self.flush_soon()
        if not call.offer(data, ready.set):
            await ready.wait()
        elif self._writer is not None and self._writer.congested:
            await asyncio.sleep(0.005)
        else:
            # A generator that never awaits must not keep the loop from reading WINDOW and CANCEL.
            await asyncio.sleep(0)
        if call.ended:
            raise asyncio.CancelledError
