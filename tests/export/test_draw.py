"""What is read of messages and their candidates in an epoch."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from export.groups import Candidate, Group
from export.training.draw import Chances, Drawn, as_served, draw

WHOLE = Chances(without=0.0, noise=0.0, parts=0.0, other=0.0)
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def group(draw_one: st.DrawFn) -> Group:
    """A message with one to twelve candidates whose texts say which they are; one of them may be right."""
    count = draw_one(st.integers(1, 12))
    right = draw_one(st.none() | st.integers(0, count - 1))
    mark = draw_one(st.integers(0, 9999))
    candidates = (Candidate(f"q{mark}-{i}", f"p{mark}-{i}", f"a{mark}-{i}", 1 - i / 100) for i in range(count))
    return Group(f"message {mark}", tuple(candidates), right)


GROUPS = st.lists(group(), min_size=1, max_size=6, unique_by=lambda one: one.message)
CHANCES = st.builds(
    Chances,
    candidates=st.integers(1, 6),
    nearest=st.integers(1, 12),
    without=st.floats(0, 1),
    noise=st.floats(0, 1),
    parts=st.floats(0, 1),
    other=st.floats(0, 1),
)


def whole_draw(groups: list[Group], seed: int, **changes: float) -> dict[str, Drawn]:
    """An epoch without noise and with whole candidates, by message."""
    chances = replace(WHOLE, **changes)  # type: ignore[arg-type]  # by name
    return {one.message: one for one in draw(groups, chances, seed=seed, epoch=0)}


@given(groups=GROUPS, seed=SEEDS)
def test_right_stays_right(groups: list[Group], seed: int) -> None:
    """Wherever the right candidate comes to stand, it is still named; and where there is none, none is."""
    drawn = whole_draw(groups, seed)
    for one in groups:
        shown = drawn[one.message]
        if one.right is None:
            assert shown.right is None
        else:
            assert shown.right is not None
            assert shown.texts[shown.right] == one.candidates[one.right].text()


@given(groups=GROUPS, chances=CHANCES, seed=SEEDS)
def test_every_message_is_drawn_once_with_as_many_candidates_as_are_asked_for(
    groups: list[Group], chances: Chances, seed: int
) -> None:
    """Fewer only where a message has fewer among its nearest, and never none."""
    drawn = draw(groups, replace(chances, noise=0.0), seed=seed, epoch=3)
    assert sorted(one.message for one in drawn) == sorted(one.message for one in groups)
    by_message = {one.message: one for one in groups}
    for one in drawn:
        of = by_message[one.message]
        wrong = min(chances.nearest, len(of.candidates) - (of.right is not None))
        assert len(one.texts) == min(chances.candidates, wrong + (one.right is not None))
        assert all(one.texts)


@given(groups=GROUPS, seed=SEEDS)
def test_no_candidate_is_drawn_twice_or_from_afar(groups: list[Group], seed: int) -> None:
    """Wrong candidates are distinct, and among the nearest."""
    for one in groups:
        shown = whole_draw(groups, seed, nearest=4)[one.message]
        assert len(set(shown.texts)) == len(shown.texts)
        places = [[c.text() for c in one.candidates].index(text) for text in shown.texts]
        wrong = [place for place in range(len(one.candidates)) if place != one.right]
        assert {place for place in places if place != one.right} <= set(wrong[:4])


@given(groups=GROUPS, seed=SEEDS)
def test_without_its_right_candidate_nothing_is_right(groups: list[Group], seed: int) -> None:
    """A message whose right candidate is left out is one that the FAQ does not answer; the only candidate stays."""
    drawn = whole_draw(groups, seed, without=1.0)
    for one in groups:
        shown = drawn[one.message]
        if one.right is None or len(one.candidates) > 1:
            assert shown.right is None
        else:
            assert shown.right == 0
        if one.right is not None and shown.right is None:
            assert one.candidates[one.right].text() not in shown.texts


@given(groups=GROUPS, chances=CHANCES, seed=SEEDS, epoch=st.integers(0, 100))
def test_seed_and_epoch_alone_decide(groups: list[Group], chances: Chances, seed: int, epoch: int) -> None:
    """The same epoch of the same seed is the same, whatever was drawn before."""
    first = draw(groups, chances, seed=seed, epoch=epoch)
    draw(groups, chances, seed=seed, epoch=epoch + 1)
    assert draw(groups, chances, seed=seed, epoch=epoch) == first


@given(seed=SEEDS)
def test_epochs_and_seeds_differ(seed: int) -> None:
    """No two epochs show the same, nor do two seeds."""
    candidates = tuple(Candidate(f"q{i}", f"p{i}", f"a{i}", 0.5) for i in range(12))
    groups = [Group(f"message {i}", candidates, i % 12) for i in range(40)]
    first = draw(groups, Chances(), seed=seed, epoch=0)
    assert draw(groups, Chances(), seed=seed, epoch=1) != first
    assert draw(groups, Chances(), seed=seed + 1, epoch=0) != first


@given(groups=GROUPS, seed=SEEDS)
def test_a_part_of_a_candidate_says_something(groups: list[Group], seed: int) -> None:
    """With parts left out, a candidate has no answer and one of its two ways to ask."""
    for one in draw(groups, replace(WHOLE, parts=1.0), seed=seed, epoch=0):
        assert all(text[0] in "qp" and " | " not in text for text in one.texts)


@given(seed=SEEDS)
def test_another_way_to_ask_stands_for_the_question_and_is_never_the_message(seed: int) -> None:
    """It is one of the entry's, and neither the message nor what is read of the candidate anyway."""
    ways = ("q", "p", "message", "another", "one more")
    group = Group("message", (Candidate("q", "p", "a", 0.9, ways), Candidate("other q", "", "", 0.8)), 0)
    read = set()
    for epoch in range(20):
        (drawn,) = draw([group], replace(WHOLE, other=1.0), seed=seed, epoch=epoch)
        read |= set(drawn.texts)
    assert read <= {"q | p | a", "another | p | a", "one more | p | a", "other q"}
    assert len(read) > 2


@given(groups=GROUPS)
def test_judging_shows_what_a_server_shows(groups: list[Group]) -> None:
    """Every candidate, whole, in order, and the message as it is."""
    for one, shown in zip(groups, as_served(groups), strict=True):
        assert shown == Drawn(one.message, tuple(c.text() for c in one.candidates), one.right)
