"""What a process that a function forks must not do with the runner it inherits."""

import os

from .call import cancel_lock


class Forked:
    """Tells a child that the function has forked, and that came back into the runner's code, to end."""

    def __init__(self, runner):
        self._set = False
        self._runner = runner
        os.register_at_fork(after_in_child=self._in_child)

    def is_set(self):
        return self._set

    def _in_child(self):
        self._set = True
        # Another thread of the parent may have held it.
        cancel_lock._at_fork_reinit()
        connection = self._runner.connection
        if connection is not None:
            connection.writer.closed = True
            connection.sock.close()

    @staticmethod
    def leave():
        os._exit(0)
