"""How soon a worker that has died is started again, and when it is given up: pure."""

# A worker that lived for so many seconds was a good one: what came before it does not count.
STEADY_SECONDS = 60.0
# Bounds of the delay before a worker is started again, in seconds.
FIRST_SECONDS = 0.5
MOST_SECONDS = 30.0
# How many times in a row a worker may die young.
PATIENCE = 6


class Restarts:
    """What is remembered of one worker's deaths."""

    def __init__(self) -> None:
        self._young = 0

    def died(self, lived: float) -> float | None:
        """How long to wait before the next start, in seconds; None where there is to be none.

        Args:
            lived: how long it had lived, in seconds. Who lived long enough is replaced at once; who died young
                after a delay that doubles from death to death.
        """
        if lived >= STEADY_SECONDS:
            self._young = 0
            return 0.0
        self._young += 1
        if self._young >= PATIENCE:
            return None
        delay: float = min(FIRST_SECONDS * 2 ** (self._young - 1), MOST_SECONDS)
        return delay

    def forgive(self) -> None:
        """Begin anew: somebody has looked after it."""
        self._young = 0
