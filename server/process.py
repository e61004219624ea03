"""What a process that serves asks of its interpreter, and what it tells its supervisor."""

import gc
import sys

# Seconds after which a thread that waits for the interpreter is let in. A lane that has its batch's result needs it for
# some microseconds before it can start the next; at Python's own 5 ms its core would stand still meanwhile.
SWITCH_SECONDS = 0.001

# What a worker says on standard output: once, when it serves, and from then on every now and then.
READY, ALIVE = "ready", "alive"


def settle() -> None:
    """Get ready to serve, once everything is loaded.

    What is loaded stays: a garbage collector that goes through all of it again and again would hold up messages for
    tens of milliseconds.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_SECONDS)
