"""What a FAQ has to teach a cross-encoder."""

import msgspec
import numpy as np
import pytest

from export.groups import Group
from export.runtime.bi_encoder import BiEncoder
from intents.entries import Entry, Faq, Header
from intents.groups import Miner, split
from intents.items import items_of, plain_text
from intents.labelled import Labelled
from tests.intents.small import SMALL

ENTRY = {phrasing: entry for entry in SMALL.entries for phrasing in (entry.question, *entry.phrasings)}


@pytest.fixture(scope="module")
def miner(encoder: BiEncoder) -> Miner:
    """Of the small FAQ."""
    return Miner(SMALL, encoder)


def answers(group: Group, entry: Entry) -> list[bool]:
    """Which of a group's candidates are an entry's."""
    own = {entry.question, *entry.phrasings, plain_text(entry.answer)}
    return [bool(own & {one.question, one.phrasing, one.answer}) for one in group.candidates]


def test_each_phrasing_is_a_message_to_the_faq_without_it(miner: Miner) -> None:
    """Its entry is right, and is shown by another of its texts; disabled entries teach nothing."""
    groups = miner.phrasings()
    enabled = [item for item in items_of(SMALL.entries) if item.role == "phrasing"]
    assert {group.message for group in groups} <= {item.text for item in enabled}
    assert len(groups) > 0.8 * len(enabled)
    for group in groups:
        assert group.right is not None
        assert answers(group, ENTRY[group.message])[group.right]
        assert all(candidate.text() for candidate in group.candidates)
        assert group.message not in {
            text for candidate in group.candidates for text in (candidate.question, candidate.phrasing)
        }


def test_candidates_are_the_bi_encoders(miner: Miner) -> None:
    """They stand best first, no entry twice, and mostly with the right one at the top."""
    groups = miner.phrasings()
    for group in groups:
        scores = [candidate.score for candidate in group.candidates]
        assert scores == sorted(scores, reverse=True)
        assert sum(answers(group, ENTRY[group.message])) == 1
    assert sum(group.right == 0 for group in groups) > len(groups) / 2


def test_messages_are_put_to_the_whole_faq(miner: Miner) -> None:
    """An answerable message has its entry among the candidates, and one that nothing answers has wrong ones alone."""
    known, unknown = miner.messages(
        [Labelled("are you there on sundays", "opening-hours"), Labelled("can it rain", None)]
    )
    assert known.right is not None
    assert answers(known, ENTRY["When are you open?"])[known.right]
    assert unknown.right is None
    assert unknown.candidates
    fax = ENTRY["fax line"]
    assert not any(any(answers(group, fax)) for group in (known, unknown)), "a disabled entry is no candidate"


def test_a_message_that_equals_a_phrasing_teaches_nothing(miner: Miner) -> None:
    """No model reads it when it is asked, whatever its case and punctuation; that of a disabled entry is read."""
    same = [Labelled("Opening HOURS!", "opening-hours"), Labelled("hey you", "hello"), Labelled("fax line?", None)]
    assert [group.message for group in miner.messages(same)] == ["fax line?"]
    assert miner.messages([]) == []


def test_a_message_whose_entry_is_not_found_is_left_out(encoder: BiEncoder) -> None:
    """Without its right candidate it would be taught that nothing answers it."""
    entries = [Entry(id=f"e{i}", question=f"When does the number {i} bus leave?", answer="At noon.") for i in range(30)]
    entries.append(Entry(id="cats", question="May I bring cats?", answer="Yes."))
    miner = Miner(Faq(header=Header(), entries=tuple(entries)), encoder)
    lost = [Labelled("when does the number 7 bus leave on monday", "cats")]
    assert miner.messages(lost) == []
    (posed,) = miner.pose(lost)
    assert posed.expected == 30
    assert len(miner.shown(posed)) == len(posed.candidates) == 10


@pytest.mark.parametrize("entries", [SMALL.entries[:1], SMALL.entries[3:4]])
def test_a_faq_of_one_entry_has_groups_of_one(entries: tuple[Entry, ...], encoder: BiEncoder) -> None:
    """There is nothing to confuse it with, and it is still right."""
    groups = Miner(Faq(header=SMALL.header, entries=entries), encoder).phrasings()
    assert groups
    assert {(len(group.candidates), group.right) for group in groups} == {(1, 0)}


def test_an_entry_without_another_text_is_not_asked(encoder: BiEncoder) -> None:
    """A question that stands alone, without phrasing and answer, finds nothing when it is left out."""
    lonely = Entry(id="alone", question="Is there a cloakroom?", answer="alone")
    groups = Miner(Faq(header=SMALL.header, entries=(*SMALL.entries, lonely)), encoder).phrasings()
    assert lonely.question not in {group.message for group in groups}


def test_some_phrasings_are_left_out() -> None:
    """About one in eight, never a question; they are messages to the rest, and nothing is lost or changed."""
    faq = Faq(
        header=SMALL.header,
        entries=tuple(
            Entry(id=f"e{i}", question=f"q{i}", answer="a", phrasings=tuple(f"p{i}-{j}" for j in range(10)))
            for i in range(40)
        ),
    )
    rest, left_out = split(faq, np.random.default_rng(1))
    assert 25 < len(left_out) < 80
    for entry, kept in zip(faq.entries, rest.entries, strict=True):
        away = {one.text for one in left_out if one.expected == entry.id}
        assert kept == msgspec.structs.replace(entry, phrasings=tuple(p for p in entry.phrasings if p not in away))
        assert away <= set(entry.phrasings)
    assert split(faq, np.random.default_rng(1)) == (rest, left_out)
    assert split(faq, np.random.default_rng(2))[1] != left_out


def test_nothing_is_left_out_of_entries_that_have_little() -> None:
    """Those with one phrasing keep it, and so do disabled ones."""
    few = tuple(msgspec.structs.replace(entry, phrasings=entry.phrasings[:1]) for entry in SMALL.entries)
    disabled = tuple(msgspec.structs.replace(entry, enabled=False) for entry in SMALL.entries)
    for entries in (few, disabled):
        faq = Faq(header=SMALL.header, entries=entries)
        for seed in range(20):
            assert split(faq, np.random.default_rng(seed)) == (faq, [])


def test_more_is_left_out_of_a_small_faq() -> None:
    """One in three at most, so that its next build has something to calibrate by that nobody has learnt."""
    entries = tuple(
        Entry(id=f"e{i}", question=f"q{i}", answer="a", phrasings=tuple(f"p{i}-{j}" for j in range(5)))
        for i in range(20)
    )
    faq = Faq(header=SMALL.header, entries=entries)
    counts = [len(split(faq, np.random.default_rng(seed))[1]) for seed in range(30)]
    assert 30 < np.mean(counts) < 36
