"""What one call leaves to the next, by threads and by the event loop: nothing. Run: python3 -m unittest"""

import asyncio
import contextvars
import decimal
import threading
import time
import types
import unittest
from unittest import mock

from shoal_runner import protocol as p
from shoal_runner.contract import Contract
from shoal_runner.loop import Loop
from shoal_runner.threads import Threads

NOT_FORKED = types.SimpleNamespace(is_set=lambda: False)
SETTING = contextvars.ContextVar("setting", default="none")


def fake_call(**more):
    """A call in flight; `answers` gets what it ends with."""
    answers = []
    call = types.SimpleNamespace(
        answers=answers,
        body=b"",
        cancelled=False,
        ended=False,
        head=b"GET\n\n",
        interrupted=False,
        thread=None,
        task=None,
        connection=types.SimpleNamespace(writer=types.SimpleNamespace(flush=lambda: None)),
        answer=lambda status, head, body: answers.append(body.decode()),
        start=lambda status, head: True,
        offer=lambda data, waiter: answers.append(data.decode()) or True,
        finish=lambda: answers.append("end"),
        fail=lambda kind, text: answers.append((kind, text.split("\n")[0])) or True,
    )
    call.__dict__.update(more)
    return call


class OneAtATime(Threads):
    """Answers calls of `functions`, each when the one before has been answered."""

    def __init__(self, functions):
        contract = types.SimpleNamespace(kind="native", function=lambda function: function(), arguments=lambda call: (call.function,))
        super().__init__(contract, 1, self._next, NOT_FORKED)
        self.over = threading.Event()
        self._functions = functions(self)
        self._answered = threading.Semaphore()
        self._current = None

    def _next(self):
        self._answered.acquire()
        function = next(self._functions, None)
        if function is None:
            self.over.set()
            threading.Event().wait()
        writer = types.SimpleNamespace(flush=self._flush)
        self._current = fake_call(function=function, connection=types.SimpleNamespace(writer=writer))
        self.submit(self._current)

    def _flush(self):
        call, self._current = self._current, None
        if call is not None:
            self._answered.release()


class WorkersTest(unittest.TestCase):
    def test_calls_that_are_slow_now_and_then_leave_no_threads_behind(self):
        def functions(threads):
            for _ in range(8):
                while not threads._inline:
                    yield lambda: None

                def slow():
                    # The lead has been taken away then.
                    until = time.monotonic() + 10
                    while threads._inline and time.monotonic() < until:
                        time.sleep(0.001)

                yield slow

        before = threading.active_count()
        with mock.patch.multiple("shoal_runner.threads", STREAK_MIN=20, SOON_S=0, LEADER_CALL_S=60, WORKER_CALL_S=60):
            threads = OneAtATime(functions)
            threading.Thread(target=threads.run, daemon=True).start()
            self.assertTrue(threads.over.wait(30), "the calls have not ended")
        # The first, which is a worker now, the leader and its monitor; one that has just lost the lead ends in a moment.
        until = time.monotonic() + 5
        while (left := threading.active_count() - before) > 3 and time.monotonic() < until:
            time.sleep(0.01)
        self.assertLessEqual(left, 3)


class ContextTest(unittest.TestCase):
    def setUp(self):
        # As a function does that is being loaded.
        token = SETTING.set("loaded")
        self.addCleanup(SETTING.reset, token)

    def test_what_a_call_sets_is_not_seen_by_the_next_in_its_thread(self):
        def function():
            before = SETTING.get()
            SETTING.set("a call")
            return f"{before}, {SETTING.get()}"

        threads = Threads(Contract(function, "classic", "f", "r"), 1, None, NOT_FORKED)
        calls = [fake_call() for _ in range(4)]
        for call in calls[:2]:
            threads.submit(call)
        self.assertTrue(threads._run_inline())
        self.assertEqual(SETTING.get(), "loaded")
        threads._inline = False
        for call in calls[2:]:
            threads.submit(call)
            threads._hand_out()
            until = time.monotonic() + 5
            while not call.answers and time.monotonic() < until:
                time.sleep(0.001)
        self.assertEqual([call.answers for call in calls], [["loaded, a call"]] * 4)

    def test_how_a_call_sets_decimal_arithmetic_is_not_seen_by_the_next(self):
        # Touched as the module is loaded: calls begin with one setting, which is changed in place.
        decimal.getcontext()

        def function():
            before = decimal.getcontext().prec
            decimal.getcontext().prec = 5
            return str(before)

        async def coroutine():
            return function()

        threads = Threads(Contract(function, "classic", "f", "r"), 1, None, NOT_FORKED)
        calls = [fake_call() for _ in range(4)]
        for call in calls[:2]:
            threads.submit(call)
        self.assertTrue(threads._run_inline())
        self.run_async(coroutine, *calls[2:])
        self.assertEqual([call.answers for call in calls], [["28"]] * 4)

    def run_async(self, function, *calls):
        """Calls an async function, one call after another, all by the same task."""

        async def serve(engine):
            for call in calls:
                engine.submit(call)
                # Long enough for each, and seen at once.
                for _ in range(5_000):
                    await asyncio.sleep(0.001)
                    if call.task is None and call.answers:
                        break

        Loop(Contract(function, "classic", "f", "r"), NOT_FORKED).run(serve)
        return [call.answers for call in calls]

    def test_what_an_async_call_sets_is_not_seen_by_the_next_of_its_task(self):
        async def function():
            before = SETTING.get()
            token = SETTING.set("a call")
            await asyncio.sleep(0)
            own = SETTING.get()
            SETTING.reset(token)
            SETTING.set("the end")
            return f"{before}, {own}"

        self.assertEqual(self.run_async(function, fake_call(), fake_call()), [["loaded, a call"]] * 2)

    def test_what_an_async_call_begins_sees_what_it_has_set(self):
        async def look():
            await asyncio.sleep(0)
            return SETTING.get()

        async def function():
            SETTING.set("a call")
            seen = [await look(), await asyncio.create_task(look()), *await asyncio.gather(look(), look())]
            seen.append(await asyncio.wait_for(look(), 5))
            seen.append(await asyncio.get_running_loop().run_in_executor(None, contextvars.copy_context().run, SETTING.get))
            late = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.001, lambda: late.set_result(SETTING.get()))
            seen.append(await late)
            own = asyncio.current_task() is calls[len(counted)].task
            counted.append(1)
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.sleep(60), 0.001)
            return f"{own} {set(seen)}"

        counted = []
        calls = [fake_call(), fake_call()]
        self.assertEqual(self.run_async(function, *calls), [["True {'a call'}"]] * 2)

    def test_a_stream_keeps_what_it_sets_from_part_to_part(self):
        async def function():
            for part in ("one", "two"):
                yield f"{SETTING.get()} "
                SETTING.set(part)
                await asyncio.sleep(0)

        calls = [fake_call(), fake_call()]
        self.assertEqual(self.run_async(function, *calls), [["loaded ", "one ", "end"]] * 2)

    def test_a_cancelled_async_call_cleans_up_in_its_own_context(self):
        seen = []

        async def function():
            SETTING.set("a call")
            try:
                asyncio.get_running_loop().call_soon(cancel)
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0)
                seen.append(SETTING.get())

        def cancel():
            call.cancelled = True
            call.task.cancel()

        for _ in range(2):
            call = fake_call()
            self.assertEqual(self.run_async(function, call), [[(p.KIND_CANCELLED, "cancelled")]])
        self.assertEqual(seen, ["a call"] * 2)


class AsyncOutputTest(unittest.TestCase):
    def test_what_a_thread_of_an_async_function_logs_is_written_while_the_loop_sleeps(self):
        flushed = threading.Event()

        def work(engine):
            # Until the loop is asleep.
            time.sleep(0.1)
            engine.flush_soon()
            return flushed.wait(5)

        async def serve(engine):
            engine.attach(types.SimpleNamespace(writer=types.SimpleNamespace(flush=flushed.set)))
            seen.append(await asyncio.get_running_loop().run_in_executor(None, work, engine))

        seen = []
        Loop(None, NOT_FORKED).run(serve)
        self.assertEqual(seen, [True])


if __name__ == "__main__":
    unittest.main()
