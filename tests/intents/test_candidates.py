"""From the similarities of items to candidates."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intents import holdout
from intents.candidates import MAX_CANDIDATES, Candidate, EntryScorer, nearest_of_each, rank
from intents.heads import Heads
from intents.search import Floats, Retrieved

SIMILARITIES = st.floats(min_value=-1, max_value=1, width=32)
HEAD_SCORES = st.floats(min_value=-4, max_value=4, width=32)  # a head is longer than 1, and has a bias
ROWS = st.lists(st.tuples(SIMILARITIES, HEAD_SCORES), min_size=1, max_size=25)
WEIGHTS = st.sampled_from(holdout.WEIGHTS)


def floats(values: Sequence[float]) -> Floats:
    """Values as the encoder gives them."""
    return np.array(values, dtype=np.float32)


def ranked(nearest: Floats, head: Floats, weight: float, last: float) -> list[Candidate]:
    """Candidates of entries 0, 1, ... whose nearest items stand at 100, 101, ..."""
    entries = np.arange(len(nearest))
    return rank(entries, entries + 100, nearest, head, weight, last)


@given(ROWS, WEIGHTS)
def test_candidates_stand_best_first(rows: list[tuple[float, float]], weight: float) -> None:
    """Scores never rise along the list, equal ones stand by entry, and only the best few are kept."""
    nearest, head = floats([a for a, _ in rows]), floats([b for _, b in rows])
    found = ranked(nearest, head, weight, float(nearest.min()))
    assert len(found) == min(len(rows), MAX_CANDIDATES)
    assert [(-c.score, c.entry) for c in found] == sorted((-c.score, c.entry) for c in found)
    assert all(c.item == c.entry + 100 for c in found)
    best = ((nearest + weight * head) / (1 + weight)).max()
    assert found[0].score == pytest.approx(float(best), abs=1e-6)


@given(ROWS, WEIGHTS)
def test_the_margin_is_the_distance_to_the_best_other_entry(rows: list[tuple[float, float]], weight: float) -> None:
    """The first candidate's margin is never negative; the others' are their distance to the first, never positive."""
    nearest, head = floats([a for a, _ in rows]), floats([b for _, b in rows])
    first, *others = ranked(nearest, head, weight, float(nearest.min()))
    assert first.margin >= 0
    if others:
        assert first.margin == pytest.approx(first.score - others[0].score)
    assert all(c.margin == pytest.approx(c.score - first.score) and c.margin <= 0 for c in others)


def test_a_lone_entry_is_compared_with_what_was_not_retrieved() -> None:
    """An entry that was not retrieved is at most as near as the worst item that was."""
    (only,) = rank(np.array([4]), np.array([9]), floats([0.75]), floats([0.75]), 1.0, 0.25)
    assert only == Candidate(4, 0.75, 0.5, 9)


def test_a_lone_entry_below_its_own_items_has_no_margin() -> None:
    """A low head score may pull the score below the worst item: the margin is then 0, and never negative."""
    (only,) = ranked(floats([0.5]), floats([0.0]), 1.0, 0.5)
    assert only.margin == 0


@given(ROWS)
def test_weight_0_is_the_nearest_phrasing(rows: list[tuple[float, float]]) -> None:
    """Without a weight the head has no say: the score is the nearest item's similarity."""
    nearest = floats([a for a, _ in rows])
    found = ranked(nearest, floats([b for _, b in rows]), 0.0, -1.0)
    assert all(c.score == pytest.approx(float(nearest[c.entry]), abs=1e-7) for c in found)


@given(ROWS, WEIGHTS, st.data())
def test_a_nearer_item_never_harms_its_entry(
    rows: list[tuple[float, float]], weight: float, data: st.DataObject
) -> None:
    """When an entry's nearest item comes nearer, its score and its margin do not fall, nor does its place."""
    entry = data.draw(st.integers(min_value=0, max_value=len(rows) - 1))
    nearest, head = floats([a for a, _ in rows]), floats([b for _, b in rows])
    last = float(nearest.min())
    before = ranked(nearest, head, weight, last)
    raised = nearest.copy()
    raised[entry] = min(1.0, raised[entry] + 0.25)
    after = ranked(raised, head, weight, last)
    places = [c.entry for c in before]
    if entry in places:
        place = [c.entry for c in after].index(entry)
        assert place <= places.index(entry)
        assert after[place].score >= before[places.index(entry)].score
        assert after[place].margin >= before[places.index(entry)].margin - 1e-6


def test_ranking_nothing_gives_nothing() -> None:
    """Where nothing was retrieved there are no candidates."""
    nothing = floats([])
    assert ranked(nothing, nothing, 1.0, 0.0) == []


def test_each_entry_counts_its_best_item() -> None:
    """Of items that stand best first, an entry's first one is its nearest."""
    entries, first = nearest_of_each(np.array([7, 2, 7, 2, 5]))
    assert dict(zip(entries.tolist(), first.tolist(), strict=True)) == {7: 0, 2: 1, 5: 4}


@pytest.fixture
def scorer() -> EntryScorer:
    """Three entries: two items along x, one along y, one along z, and heads along the same; that of y has a bias."""
    return EntryScorer(np.array([0, 0, 1, 2]), Heads(np.eye(3, dtype=np.float32), floats([0.0, 0.5, 0.0])), 1.0)


def test_scores_join_the_nearest_item_and_the_head(scorer: EntryScorer) -> None:
    """A candidate's score is the weighted mean of its nearest item's similarity and its head's score."""
    vector = floats([0.8, 0.6, 0.0])
    found = scorer.candidates(Retrieved(vector, np.array([0, 2, 3]), floats([0.8, 0.6, 0.0])))
    assert [c.entry for c in found] == [1, 0, 2]
    assert [c.score for c in found] == pytest.approx([(0.6 + 0.6 + 0.5) / 2, 0.8, 0.0], abs=1e-6)
    assert found[0].margin == pytest.approx(0.05, abs=1e-6)
    assert [c.item for c in found] == [2, 0, 3]


def test_entries_that_are_not_allowed_are_left_out(scorer: EntryScorer) -> None:
    """A mask takes entries out as if they had not been retrieved, also out of the margin."""
    vector = floats([0.8, 0.6, 0.0])
    allowed = np.array([True, False, True])
    found = scorer.candidates(Retrieved(vector, np.array([0, 2, 3]), floats([0.8, 0.6, 0.0])), allowed)
    assert [(c.entry, c.item) for c in found] == [(0, 0), (2, 3)]
    assert found[0].margin == pytest.approx(0.8, abs=1e-6)
    assert scorer.candidates(Retrieved(vector, np.array([0]), floats([0.8])), np.array([False, True, True])) == []


def test_nothing_retrieved_gives_no_candidates(scorer: EntryScorer) -> None:
    """A search that found nothing has no candidates."""
    assert scorer.candidates(Retrieved(floats([1, 0, 0]), np.array([], dtype=np.int64), floats([]))) == []
