"""Connections that are still in their handshake: so many of one address at a time, and so many in all.

Whoever may open a connection is asked for once a request has come (`server.admission`). Before that there is only an
address, and whoever sends no request, or sends it slowly, holds a file and some memory for as long as a handshake may
take. So connections are counted from the moment at which they are accepted until their handshake is over, one way or
another; what is too much is cut off at once, for nobody has asked for anything that could be answered.

With TLS they are counted once its own handshake is over: before that asyncio shows no connection to anybody.
"""

from collections import Counter
from collections.abc import Callable
from typing import Literal

from server.address import UNKNOWN, Proxies, group_of

HandshakeCause = Literal["handshakes", "handshakes_per_address"]


class Handshakes:
    """Counts them, and says what is too much.

    Invariant: whoever was let begin is counted until it ends, and nobody else is.

    Args:
        most: at a time.
        most_per_address: of one address; of those of trusted proxies, behind which everybody is, as many as in all.
        proxies: those.
        on_refused: told of each connection that is to be cut off.
    """

    def __init__(
        self, *, most: int, most_per_address: int, proxies: Proxies, on_refused: Callable[[HandshakeCause], None]
    ) -> None:
        self._most, self._most_per_address = most, most_per_address
        self._proxies, self._on_refused = proxies, on_refused
        self._of: Counter[str] = Counter()
        self._total = 0

    def __len__(self) -> int:
        """How many are under way."""
        return self._total

    def begin(self, peer: str | None) -> str | None:
        """Count a connection that has been accepted.

        Args:
            peer: the address at its other end, None where it has none.

        Returns:
            What to `end` it by; None where it is to be cut off.
        """
        place = UNKNOWN if peer is None or self._proxies.have(peer) else group_of(peer)
        if self._total >= self._most:
            self._on_refused("handshakes")
            return None
        if place != UNKNOWN and self._of[place] >= self._most_per_address:
            self._on_refused("handshakes_per_address")
            return None
        self._of[place] += 1
        self._total += 1
        return place

    def end(self, place: str) -> None:
        """Forget one whose handshake is over, or that has ended in it."""
        self._total -= 1
        self._of[place] -= 1
        if not self._of[place]:
            del self._of[place]
