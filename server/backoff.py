"""How long to wait before each try: pure but for chance."""

import random
from collections.abc import Callable

FIRST_SECONDS = 0.5
MOST_SECONDS = 30.0


class Backoff:
    """Delays that grow, each drawn between nothing and a bound that doubles from one to the next ("full jitter").

    Clients that lose their server together then do not come back together.

    Args:
        first: the first bound, in seconds.
        most: the largest bound, in seconds.
        draw: a number between two bounds.
    """

    def __init__(
        self,
        first: float = FIRST_SECONDS,
        most: float = MOST_SECONDS,
        *,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._first = first
        self._most = most
        self._draw = draw
        self._bound = min(first, most)

    def next(self) -> float:
        """Seconds to wait before the next try."""
        bound, self._bound = self._bound, min(2 * self._bound, self._most)
        return self._draw(0.0, bound)

    def reset(self) -> None:
        """Begin with the first bound again, because a try has succeeded."""
        self._bound = min(self._first, self._most)
