"""Parts of a FAQ: what is left out is asked, what stays is a FAQ, and nothing is in both."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intents.entries import Entry, Faq, Header
from intents.folds import by_entries, by_phrasings, few_shot
from intents.items import ways_to_ask
from intents.normalise import normalise
from tests.intents.small import SMALL

DAY = date(2026, 7, 15)
BEFORE = date(2026, 1, 1)


def chance(seed: int = 3) -> np.random.Generator:
    """A generator of its own for each use."""
    return np.random.default_rng(seed)


def faq(*counts: int) -> Faq:
    """A FAQ whose entries have so many ways to ask them."""
    entries = [
        Entry(id=f"e{n}", question=f"q{n}", answer="a", phrasings=tuple(f"p{n}-{i}" for i in range(1, count)))
        for n, count in enumerate(counts)
    ]
    return Faq(header=Header(), entries=tuple(entries))


faqs = st.lists(st.integers(1, 12), min_size=1, max_size=8).map(lambda counts: faq(*counts))


@given(faqs, st.integers(2, 6), st.integers(0, 5))
def test_every_phrasing_is_asked_once_of_an_index_without_it(whole: Faq, folds: int, seed: int) -> None:
    """Entries with two ways or more are asked by each of them, once; every entry keeps one in every fold."""
    parts = by_phrasings(whole, folds, DAY, chance(seed))
    asked = [(message.expected, message.text) for part in parts for message in part.messages]
    assert sorted(asked) == sorted(
        (entry.id, text) for entry in whole.entries if len(ways_to_ask(entry)) > 1 for text in ways_to_ask(entry)
    )
    assert len(parts) <= folds
    for part in parts:
        assert part.messages
        kept = {text for entry in part.faq.entries for text in ways_to_ask(entry)}
        assert not kept & {message.text for message in part.messages}
        assert len(kept) + len(part.messages) == sum(len(ways_to_ask(entry)) for entry in whole.entries)
        assert [entry.id for entry in part.faq.entries] == [entry.id for entry in whole.entries]


@given(faqs, st.integers(2, 6), st.integers(0, 5))
def test_every_entry_is_left_out_once(whole: Faq, folds: int, seed: int) -> None:
    """All ways to ask an entry are out of scope of one index, which lacks that entry; there is always another one."""
    parts = by_entries(whole, folds, DAY, chance(seed))
    if len(whole.entries) == 1:
        assert parts == []
        return
    asked = sorted(message.text for part in parts for message in part.messages)
    assert asked == sorted(text for entry in whole.entries for text in ways_to_ask(entry))
    for part in parts:
        assert {message.expected for message in part.messages} == {None}
        kept = [entry for entry in part.faq.entries if entry.enabled]
        assert kept
        assert not {message.text for message in part.messages} & {t for entry in kept for t in ways_to_ask(entry)}


def test_a_question_that_is_left_out_is_replaced() -> None:
    """The first phrasing that stays is the question then, so that nothing of the one that is asked is left."""
    for part in by_phrasings(faq(3, 2), 2, DAY, chance()):
        for message in part.messages:
            entry = next(entry for entry in part.faq.entries if entry.id == message.expected)
            assert message.text not in {entry.question, *entry.phrasings}
            assert entry.question


def test_phrasings_that_a_server_takes_for_the_same_go_together() -> None:
    """One that differs in case and punctuation alone would be found without a search, and is not asked besides."""
    entry = Entry(id="e", question="Opening hours?", answer="a", phrasings=("opening hours", "when are you open"))
    parts = by_phrasings(Faq(header=Header(), entries=(entry,)), 2, DAY, chance())
    assert sorted(message.text for part in parts for message in part.messages) == [
        "Opening hours?",
        "when are you open",
    ]
    for part in parts:
        kept = {normalise(text) for text in ways_to_ask(part.faq.entries[0])}
        assert not kept & {normalise(message.text) for message in part.messages}


@pytest.mark.parametrize(("today", "sale"), [(DAY, True), (BEFORE, False)])
def test_what_cannot_be_answered_is_not_asked(today: date, sale: bool) -> None:  # noqa: FBT001 a parameter
    """Disabled entries, and those that are not valid on the day, are asked neither way."""
    for parts in (by_phrasings(SMALL, 3, today, chance()), by_entries(SMALL, 3, today, chance())):
        texts = {message.text for part in parts for message in part.messages}
        assert "july sale" in texts or not sale
        assert not texts & {"fax line", "What is your fax number?", *([] if sale else ["july sale"])}
        assert not any(part.faq.entries[-1].enabled for part in parts)


@given(faqs, st.integers(1, 5), st.integers(0, 5))
def test_few_shots_are_drawn_of_each_entry(whole: Faq, shots: int, seed: int) -> None:
    """Each entry has as many ways to ask it as are wanted, or all it had; its question if that is drawn."""
    drawn = few_shot(whole, shots, chance(seed))
    for before, after in zip(whole.entries, drawn.entries, strict=True):
        ways, own = ways_to_ask(after), ways_to_ask(before)
        assert len(ways) == min(shots, len(own))
        assert set(ways) <= set(own)
        assert (after.question == before.question) == (before.question in ways)
        assert (after.id, after.answer) == (before.id, before.answer)
    assert few_shot(whole, shots, chance(seed)) == drawn


def test_draws_differ() -> None:
    """Another seed draws other phrasings, and a question may be left out."""
    drawn = {few_shot(faq(9), 3, chance(seed)).entries[0].question for seed in range(30)}
    assert "q0" in drawn
    assert len(drawn) > 3
