"""From the similarities of items to candidates."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intents import weighing
from intents.candidates import MAX_CANDIDATES, Candidate, EntryScorer, Figures, Weights
from intents.heads import Heads
from intents.lexical import lexicon_of
from intents.search import Floats, Retrieved

SIMILARITIES = st.floats(min_value=-1, max_value=1, width=32)
HEAD_SCORES = st.floats(min_value=-4, max_value=4, width=32)  # a head is longer than 1, and has a bias
LEXICAL = st.floats(min_value=0, max_value=1, width=32)
ROWS = st.lists(st.tuples(SIMILARITIES, HEAD_SCORES, LEXICAL), min_size=1, max_size=25)
Rows = list[tuple[float, float, float]]
WEIGHTS = st.sampled_from(weighing.WEIGHTS)


def floats(values: Sequence[float]) -> Floats:
    """Values as the encoder gives them."""
    return np.array(values, dtype=np.float32)


def figures(rows: Sequence[tuple[float, float, float]], last: float | None = None) -> Figures:
    """Figures of entries 0, 1, ... whose nearest items stand at 100, 101, ..."""
    nearest, head, lexical = (floats(column) for column in zip(*rows, strict=True))
    entries = np.arange(len(rows))
    return Figures(entries, entries + 100, nearest, head, lexical, float(nearest.min()) if last is None else last)


@given(ROWS, WEIGHTS)
def test_candidates_stand_best_first(rows: Rows, weights: Weights) -> None:
    """Scores never rise along the list, nor does evidence; equal ones stand by entry; only the best few are kept."""
    found = figures(rows).ranked(weights)
    assert len(found) == min(len(rows), MAX_CANDIDATES)
    assert [(-c.score, c.entry) for c in found] == sorted((-c.score, c.entry) for c in found)
    assert all(c.item == c.entry + 100 for c in found)
    assert all(c.evidence == min(rows[one.entry][1] for one in found[: i + 1]) for i, c in enumerate(found))
    total = 1 + weights.head + weights.lexical
    best = max((near + weights.head * head + weights.lexical * lexical) / total for near, head, lexical in rows)
    assert found[0].score == pytest.approx(best, abs=1e-6)


@given(ROWS, WEIGHTS)
def test_the_margin_is_the_distance_to_the_best_other_entry(rows: Rows, weights: Weights) -> None:
    """The first candidate's margin is never negative; the others' are their distance to the first, never positive."""
    first, *others = figures(rows).ranked(weights)
    assert first.margin >= 0
    if others:
        assert first.margin == pytest.approx(first.score - others[0].score)
    assert all(c.margin == pytest.approx(c.score - first.score) and c.margin <= 0 for c in others)


def test_a_lone_entry_is_compared_with_what_was_not_retrieved() -> None:
    """An entry that was not retrieved is at most as near as the worst item that was."""
    (only,) = figures([(0.75, 0.75, 0.0)], 0.25).ranked(Weights(head=1.0))
    assert only == Candidate(0, 0.75, 0.5, 100, 0.75)


def test_a_lone_entry_below_its_own_items_has_no_margin() -> None:
    """A low head score may pull the score below the worst item: the margin is then 0, and never negative."""
    (only,) = figures([(0.5, 0.0, 0.0)], 0.5).ranked(Weights(head=1.0))
    assert only.margin == 0


@given(ROWS)
def test_without_weights_it_is_the_nearest_phrasing(rows: Rows) -> None:
    """Without weights head and words have no say in the score: it is the nearest item's similarity."""
    found = figures(rows).ranked(Weights())
    assert all(c.score == pytest.approx(rows[c.entry][0], abs=1e-7) for c in found)


@given(ROWS, WEIGHTS, st.integers(0, 2), st.data())
def test_a_higher_figure_never_harms_its_entry(rows: Rows, weights: Weights, which: int, data: st.DataObject) -> None:
    """When an entry's item comes nearer, its head score rises or it shares more words, it loses nothing."""
    entry = data.draw(st.integers(min_value=0, max_value=len(rows) - 1))
    last = min(near for near, _, _ in rows)
    before = figures(rows, last).ranked(weights)
    raised = [list(row) for row in rows]
    raised[entry][which] += 0.25
    after = figures([(a, b, c) for a, b, c in raised], last).ranked(weights)
    places = [c.entry for c in before]
    if entry in places:
        place = [c.entry for c in after].index(entry)
        assert place <= places.index(entry)
        one, other = before[places.index(entry)], after[place]
        assert other.score >= one.score
        assert other.evidence >= one.evidence
        assert other.margin >= one.margin - 1e-6


@pytest.fixture
def scorer() -> EntryScorer:
    """Three entries: two items along x, one along y, one along z, and heads along the same; that of y has a bias."""
    heads = Heads(np.eye(3, dtype=np.float32), floats([0.0, 0.5, 0.0]))
    lexicon = lexicon_of(["north", "north gate", "south gate", "tower"])
    return EntryScorer(np.array([0, 0, 1, 2]), heads, lexicon, Weights(head=1.0))


VECTOR = floats([0.8, 0.6, 0.0])
FOUND = Retrieved(VECTOR, np.array([0, 2, 3]), floats([0.8, 0.6, 0.0]))


def test_scores_join_the_nearest_item_and_the_head(scorer: EntryScorer) -> None:
    """A candidate's score is the weighted mean of its nearest item's similarity and its head's score."""
    found = scorer.candidates("tower", FOUND)
    assert [c.entry for c in found] == [1, 0, 2]
    assert [c.score for c in found] == pytest.approx([(0.6 + 0.6 + 0.5) / 2, 0.8, 0.0], abs=1e-6)
    assert found[0].margin == pytest.approx(0.05, abs=1e-6)
    assert [c.item for c in found] == [2, 0, 3]
    assert [c.evidence for c in found] == pytest.approx([1.1, 0.8, 0.0], abs=1e-6)


def test_shared_words_count_where_they_have_weight(scorer: EntryScorer) -> None:
    """The words of any item of an entry count, not of the nearest alone, and as no evidence."""
    heard = replace(scorer, weights=Weights(head=1.0, lexical=2.0))
    every = Retrieved(VECTOR, np.arange(4), floats([0.8, 0.8, 0.6, 0.0]))
    found = {c.entry: c for c in heard.candidates("North gate", every)}
    assert found[0].score == pytest.approx((0.8 + 0.8 + 2 * 1.0) / 4, abs=1e-6)
    assert found[0].item == 0
    assert found[0].evidence == pytest.approx(0.8)
    unheard = {c.entry: c for c in heard.candidates("elsewhere", every)}
    assert unheard[0].score == pytest.approx((0.8 + 0.8) / 4, abs=1e-6)


def test_entries_that_are_not_allowed_are_left_out(scorer: EntryScorer) -> None:
    """A mask takes entries out as if they had not been retrieved, also out of the margin."""
    found = scorer.candidates("tower", FOUND, np.array([True, False, True]))
    assert [(c.entry, c.item) for c in found] == [(0, 0), (2, 3)]
    assert found[0].margin == pytest.approx(0.8, abs=1e-6)
    lone = Retrieved(VECTOR, np.array([0]), floats([0.8]))
    assert scorer.candidates("tower", lone, np.array([False, True, True])) == []


@pytest.mark.parametrize("lexical", [0.0, 1.0])
def test_nothing_retrieved_gives_no_candidates(scorer: EntryScorer, lexical: float) -> None:
    """A search that found nothing has no candidates."""
    scorer = replace(scorer, weights=Weights(lexical=lexical))
    assert scorer.candidates("tower", Retrieved(VECTOR, np.array([], dtype=np.int64), floats([]))) == []
