"""Threads where there may be no room for one more."""

import threading


def start_thread(name, target):
    """Starts a daemon thread. False: the handler is at its limit of processes or of memory."""
    try:
        threading.Thread(target=target, name=name, daemon=True).start()
    except RuntimeError:
        return False
    return True
