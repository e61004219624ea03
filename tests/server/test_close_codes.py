"""Guards `server.close_codes`: after which codes a client connects again."""

import pytest

from server.close_codes import (
    EXPIRED,
    GOING_AWAY,
    IDLE,
    INTERNAL,
    TOO_FAST,
    TOO_SLOW,
    TRY_AGAIN_LATER,
    UNAUTHENTICATED,
    may_reconnect,
)


@pytest.mark.parametrize("code", [None, GOING_AWAY, 1005, 1006, INTERNAL, 1012, TRY_AGAIN_LATER, 1014, 4400, 4449])
def test_worth_another_try(code: int | None) -> None:
    """Another connection may fare better."""
    assert may_reconnect(code)


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1008, 1009, 1010, 1015, 3000, 4000, 4399, 4499, 4500])
def test_not_worth_another_try(code: int) -> None:
    """Another connection would end the same way, or the end was meant."""
    assert not may_reconnect(code)


def test_ours_are_in_their_range() -> None:
    """A client whose token is refused does not come back with the same one; one that was too fast or idle may."""
    assert (IDLE, TOO_FAST, TOO_SLOW) == (4400, 4401, 4402)
    assert all(may_reconnect(code) for code in (IDLE, TOO_FAST, TOO_SLOW))
    assert (UNAUTHENTICATED, EXPIRED) == (4450, 4451)
    assert not any(may_reconnect(code) for code in (UNAUTHENTICATED, EXPIRED))
