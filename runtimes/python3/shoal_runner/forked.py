"""What a process that a function forks must not do with the runner it inherits."""

import os
import signal

from .call import cancel_lock
from .logs import release_output

# They tell a runner to end when its calls have ended, and a process that it has forked to end.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Forked:
    """Tells a child that the function has forked, and that came back into the runner's code, to end."""

    def __init__(self, runner, streams):
        self._set = False
        self._runner = runner
        self._streams = streams
        os.register_at_fork(after_in_child=self._in_child)

    def is_set(self):
        return self._set

    def _in_child(self):
        self._set = True
        runner = self._runner
        # Another thread of the parent may have held these locks.
        cancel_lock._at_fork_reinit()
        connection = runner.connection
        if connection is not None:
            connection.lock._at_fork_reinit()
            connection.writer.closed = True
            connection.sock.close()
        for number in STOP_SIGNALS:
            # Else it would wait for the calls that the parent has in flight.
            if signal.getsignal(number) == runner.on_signal:
                signal.signal(number, signal.SIG_DFL)
        release_output(runner.logs, self._streams)

    @staticmethod
    def leave():
        os._exit(0)
