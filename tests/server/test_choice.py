"""Guards `server.choice`: who goes together."""

from hypothesis import given
from hypothesis import strategies as st

from server.budget import CostModel
from server.choice import HURRY, Bounds, choose
from server.work import Work
from tests.server.fakes import Steady

NOW = 1000.0
A_LOT = 1 << 20
# A device on which the next row is always worth its while.
EAGER = Steady(batch=1e-6)

# Everybody's length, and seconds until the deadline.
Waiting = list[tuple[int, float]]


def works(waiting: Waiting) -> list[Work[str, str]]:
    """What waits, named in order."""
    made = []
    for number, (length, left) in enumerate(waiting):
        work: Work[str, str] = Work(str(number), number, length, NOW)
        work.deadline = NOW + left
        made.append(work)
    return made


def chosen(
    *waiting: tuple[int, float],
    rows: int = 99,
    tokens: int = A_LOT,
    seconds: float = 0.1,
    cost: CostModel | None = None,
) -> list[str]:
    """The names of the next batch, in order."""
    batch = choose(works([*waiting]), cost or EAGER, NOW, Bounds(A_LOT, rows, tokens, seconds))
    return [work.item for work in batch]


def test_earliest_deadline_leads() -> None:
    """Whoever has the least time left goes first, whatever came before."""
    assert chosen((5, 9.0), (5, 3.0), (5, 6.0), rows=1) == ["1"]


def test_nearest_in_length_fill_up() -> None:
    """The leader takes along those nearest to it in length, shorter or longer, not those that came first."""
    assert chosen((50, 9.0), (9, 9.0), (10, 1.0), (40, 9.0), (12, 9.0), rows=3) == ["2", "1", "4"]


def test_of_equals_the_more_urgent_goes() -> None:
    """Among those of the same length the earlier deadline has the place."""
    assert chosen((10, 1.0), (10, 9.0), (10, 5.0), rows=2) == ["0", "2"]


def test_nobody_in_a_hurry_is_passed_over() -> None:
    """Whoever has hardly more time than a batch takes goes now, however unlike the leader in length."""
    soon = HURRY * 0.1 * 0.9
    assert chosen((5, 0.12), (5, 9.0), (30, soon), (5, 9.0), rows=2) == ["0", "2"]
    assert chosen((5, 0.12), (5, 9.0), (30, 2 * soon), (5, 9.0), rows=2) == ["0", "1"]


def test_tokens_are_counted_with_padding() -> None:
    """A batch is as wide as its longest: 3 of length 10 are 30 tokens, whoever is shorter."""
    waiting = (4, 1.0), (5, 9.0), (10, 9.0)
    assert chosen(*waiting, tokens=30) == ["0", "1", "2"]
    assert chosen(*waiting, tokens=29) == ["0", "1"]


def test_too_long_a_message_goes_alone() -> None:
    """What is longer than a whole batch may be still leaves, and nobody with it."""
    assert chosen((100, 1.0), (1, 9.0), tokens=16) == ["0"]


def test_too_long_a_message_does_not_hold_up_others() -> None:
    """What fits into no batch of others is left for its own."""
    assert chosen((4, 1.0), (100, 9.0), (4, 9.0), tokens=16) == ["0", "2"]


def test_a_batch_takes_no_longer_than_it_may() -> None:
    """Where one more would make the batch longer than what comes next should wait, it is left behind."""
    cost = Steady(batch=0.1, token=0.01)
    assert len(chosen(*[(10, 9.0)] * 9, seconds=0.55, cost=cost)) == 4
    assert chosen((100, 8.0), (10, 9.0), seconds=0.55, cost=cost) == ["0"]


def test_a_leader_with_little_time_is_not_held_up() -> None:
    """Where the leader has less time than a batch may take, the batch is done within the leader's."""
    assert len(chosen((10, 0.35), *[(10, 9.0)] * 9, seconds=1.0, cost=Steady(batch=0.1, token=0.01))) == 2


def test_a_leader_without_time_goes_all_the_same() -> None:
    """A prediction may be wrong: the leader is tried, alone."""
    assert chosen((10, 0.05), (10, 9.0), cost=Steady(batch=0.1, token=0.01)) == ["0"]


def test_a_batch_is_no_larger_than_pays() -> None:
    """Where rows cost hardly less each than in a smaller batch, the smaller one goes: it ends earlier."""
    alike = [(10, 9.0)] * 9
    assert len(chosen(*alike, seconds=1.0, cost=Steady(token=0.001))) == 1
    assert 1 < len(chosen(*alike, seconds=1.0, cost=Steady(batch=0.005, token=0.001))) < 9
    assert len(chosen(*alike, seconds=1.0, cost=Steady(batch=0.5, token=0.001))) == 9


def test_who_would_make_the_batch_dearer_stays() -> None:
    """One that is so much longer that all would pay for it is left behind, unless it is in a hurry."""
    cost = Steady(batch=0.01, token=0.001)
    assert chosen((10, 8.0), (10, 9.0), (90, 9.0), seconds=1.0, cost=cost) == ["0", "1"]
    assert chosen((10, 1.2), (10, 9.0), (90, 1.3), seconds=1.0, cost=cost) == ["0", "2"]


def test_a_device_that_never_ran_is_not_asked_for_much() -> None:
    """The guess about an unknown device bounds a batch as knowledge does."""
    assert 1 <= len(chosen(*[(10, 9.0)] * 40, rows=32, seconds=0.01, cost=CostModel())) <= 5


WAITING = st.lists(st.tuples(st.integers(1, 40), st.floats(0.001, 1)), min_size=1, max_size=30)


COSTS = st.builds(Steady, batch=st.floats(1e-6, 0.1), token=st.floats(0, 0.01))


@given(WAITING, st.integers(1, 8), st.integers(1, 200), st.floats(0.001, 0.2), COSTS)
def test_every_batch_keeps_its_bounds(
    waiting: Waiting, rows: int, tokens: int, seconds: float, cost: CostModel
) -> None:
    """Any batch is led by an earliest deadline, holds nobody twice, and passes no bound unless it is one alone."""
    everyone = works(waiting)
    batch = choose(everyone, cost, NOW, Bounds(A_LOT, rows, tokens, seconds))
    assert batch[0].deadline == min(work.deadline for work in everyone)
    assert len(set(map(id, batch))) == len(batch) <= rows
    if len(batch) > 1:
        longest = max(work.length for work in batch)
        assert len(batch) * longest <= tokens
        assert cost.mean(len(batch), longest) <= min(seconds, batch[0].deadline - NOW)


@given(WAITING, st.integers(1, 8), st.floats(0.001, 0.2))
def test_nobody_farther_is_preferred(waiting: Waiting, rows: int, seconds: float) -> None:
    """Where all fit, those in a hurry go first, the most urgent of them, then the nearest to the leader in length."""
    everyone = works(waiting)
    batch = choose(everyone, EAGER, NOW, Bounds(A_LOT, rows, A_LOT, seconds))
    leader, *others = batch
    left = [work for work in everyone if work not in batch]
    assert len(batch) == min(rows, len(everyone))

    def hurried(work: Work[str, str]) -> bool:
        return work.deadline < NOW + HURRY * seconds

    for stays in left:
        for goes in others:
            if hurried(stays):
                assert hurried(goes)
                assert goes.deadline <= stays.deadline
            elif not hurried(goes):
                assert abs(goes.length - leader.length) <= abs(stays.length - leader.length)
