"""What a process that serves asks of its interpreter and of signals, and what it tells its supervisor."""

import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Seconds after which a thread that waits for the interpreter is let in. A lane that has its batch's result needs it for
# some microseconds before it can start the next; at Python's own 5 ms its core would stand still meanwhile.
SWITCH_SECONDS = 0.001

# What a worker says on standard output: once, when it serves, and from then on every now and then.
READY, ALIVE = "ready", "alive"


class Hangups:
    """Remembers SIGHUP, which asks for a reload, until there is something to reload; to be made in the main thread.

    By default the signal would end the process, and cleanly in the eyes of systemd. Nor can it be ignored: what was
    changed before it came may already have been loaded as it was.

    Attributes:
        came: whether it has come since this was made, or `without_hangups` began.
    """

    def __init__(self) -> None:
        self.came = False
        signal.signal(signal.SIGHUP, self._remember)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # see `without_hangups`

    def _remember(self, *_: object) -> None:
        self.came = True


@contextmanager
def without_hangups() -> Iterator[None]:
    """Have SIGHUP wait while this lasts; and, for a process that is started in it, until that makes its `Hangups`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def settle() -> None:
    """Get ready to serve, once everything is loaded.

    What is loaded stays: a garbage collector that goes through all of it again and again would hold up messages for
    tens of milliseconds.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_SECONDS)
