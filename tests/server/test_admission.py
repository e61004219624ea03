"""Who may open a connection."""

from collections import Counter
from http import HTTPStatus

from hypothesis import given
from hypothesis import strategies as st

from server.admission import Admission


class Clock:
    """A clock that stands until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def admission(clock: Clock, most: int = 5, most_per_client: int = 3) -> Admission:
    """One with small limits."""
    return Admission(most=most, most_per_client=most_per_client, rate=1.0, burst=4, clock=clock)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=80))
def test_counts_are_kept(events: list[tuple[str, bool]]) -> None:
    """Whoever comes and goes, no limit is passed, nobody is refused without need, and nothing is left behind."""
    gate, inside = admission(Clock()), Counter[str]()
    for client, coming in events:
        if coming:
            room = inside.total() < 5 and inside[client] < 3
            refusal = gate.enter(client)
            assert (refusal is None) == room
            inside[client] += room
            if refusal is not None:
                full = inside.total() >= 5
                assert refusal.cause == ("connections" if full else "connections_per_address")
        elif inside[client]:
            gate.leave(client)
            inside[client] -= 1
        assert gate.open == inside.total()
    for client in inside.elements():
        gate.leave(client)
    assert gate.open == 0
    assert not gate._open


def test_handshakes_are_refused_for_room_before_their_rate_is_counted() -> None:
    """Full is full, whoever asks and however often; and room that is made is found."""
    clock = Clock()
    gate = admission(clock, most=1)
    assert gate.refuse("a") is None
    assert gate.enter("a") is None
    for _ in range(10):
        refusal = gate.refuse("b")
        assert refusal is not None
        assert (refusal.cause, refusal.status) == ("connections", HTTPStatus.SERVICE_UNAVAILABLE)
        assert refusal.retry_after >= 1
    gate.leave("a")
    assert gate.refuse("b") is None


def test_a_client_that_reconnects_too_fast_is_told_when_to_come_back() -> None:
    """Others are not."""
    clock = Clock()
    gate = admission(clock)
    assert [gate.refuse("a") for _ in range(4)] == [None] * 4
    refusal = gate.refuse("a")
    assert refusal is not None
    assert (refusal.cause, refusal.status) == ("connection_rate", HTTPStatus.TOO_MANY_REQUESTS)
    assert gate.refuse("b") is None
    clock.now += refusal.retry_after
    assert gate.refuse("a") is None
