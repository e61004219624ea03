"""The messages that calibration learns from."""

from dataclasses import replace

import numpy as np
import pytest

from intents.holdout import MIN_IN_SCOPE, Messages, _entry_parts, _parts, hold_out
from intents.items import Item
from tests.intents.synthetic import Synthetic, synthetic, unit


def test_large_entries_do_not_drown_the_others() -> None:
    """At most twenty phrasings of an entry are held out."""
    held_out = synthetic(3, 50, 0.5).hold_out()
    assert np.bincount(held_out.expected).tolist() == [20, 20, 20]


def test_a_held_out_phrasing_does_not_find_itself() -> None:
    """A phrasing is scored against its entry's others, and a question's own answer goes with the question."""
    axes = np.eye(40, dtype=np.float32)
    items = [Item(e, f"{e}x{i}", "phrasing" if i < 3 else "answer") for e in range(10) for i in range(4)]
    owners = np.array([item.entry for item in items])
    vectors = axes.copy()
    vectors[3] = vectors[0]  # an answer that is all question
    held_out = hold_out(vectors, owners, items, entries=10, neighbours=40)
    assert len(held_out.in_scope) == 30
    for found in held_out.in_scope:
        assert found.nearest.max() == 0


def test_heads_have_not_seen_what_they_are_asked() -> None:
    """A phrasing's head score is that of heads fitted without it: one that lies elsewhere is not known to its entry."""
    one = synthetic(12, 6, 0.1)
    stray = 5  # a phrasing of the first entry
    vectors = one.vectors.copy()
    vectors[stray] = unit(np.random.default_rng(9).normal(size=(1, 16)))[0]
    held_out = replace(one, vectors=vectors).hold_out()
    found = held_out.in_scope[held_out.texts.index("0x5")]
    (score,) = found.head[found.entries == 0]
    assert score < held_out.heads.of(vectors[stray], np.array([0]))[0] - 0.2


def test_a_left_out_entry_is_not_found() -> None:
    """A near out-of-scope message is a phrasing whose whole entry is gone, with an eighth of the others."""
    one = synthetic(16, 6, 0.5)
    held_out = one.hold_out()
    owner = {item.text: item.entry for item in one.items}
    assert len(held_out.near) == len(held_out.near_texts) == 96
    for text, found in zip(held_out.near_texts, held_out.near, strict=True):
        assert owner[text] not in found.entries
        assert len(found.entries) == 14


def test_heads_do_not_know_left_out_entries() -> None:
    """Near messages are scored by heads that were never told to tell their entry from others: these score higher."""
    one = synthetic(16, 6, 0.8)
    held_out = one.hold_out()
    place = {item.text: i for i, item in enumerate(one.items)}
    pairs = [
        (found.head.max(), held_out.heads.of(one.vectors[place[text]], found.entries).max())
        for text, found in zip(held_out.near_texts, held_out.near, strict=True)
    ]
    assert np.mean([without > knowing for without, knowing in pairs]) > 0.9


def test_phrasings_are_dealt_out_evenly() -> None:
    """Each is in one part, and no part has two of an entry while another has none."""
    owners = np.repeat(np.arange(7), 4)
    parts = _parts(np.arange(28), owners)
    assert sorted(np.concatenate(parts).tolist()) == list(range(28))
    assert all(np.bincount(owners[part], minlength=7).max() == 1 for part in parts)


@pytest.mark.parametrize("entries", [2, 3, 8, 50])
def test_some_entries_are_always_left(entries: int) -> None:
    """Each entry is left out once, and never all of them together."""
    parts = _entry_parts(np.arange(entries))
    assert sorted(np.concatenate(parts).tolist()) == list(range(entries))
    assert all(0 < len(part) < entries for part in parts)


def test_dear_heads_are_fitted_less_often() -> None:
    """Where heads take long a part of the phrasings is enough, and of the entries."""
    one = synthetic(40, 10, 0.5)
    held_out = one.hold_out(work=1)
    assert (len(held_out.texts), len(held_out.near_texts)) == (80, 50)
    assert np.bincount(held_out.expected).tolist() == [2] * 40


def test_dear_heads_do_not_leave_too_few_messages() -> None:
    """Where a few entries of many have phrasings to hold out, as many parts are looked at as calibration needs."""
    one, few = synthetic(60, 1, 0.5), synthetic(10, 4, 0.5)
    items = [*(replace(item, entry=item.entry + 10, text=f"+{item.text}") for item in one.items)]
    owners = np.concatenate([few.owners, one.owners + 10])
    whole = Synthetic(np.concatenate([few.vectors, one.vectors]), owners, [*few.items, *items], few.far, 70)
    held_out = whole.hold_out(work=1)
    assert MIN_IN_SCOPE <= len(held_out.texts) < 40
    assert MIN_IN_SCOPE <= len(held_out.near_texts) < 40


def test_messages_that_the_faq_seems_to_answer_are_set_aside() -> None:
    """A shipped message that lies as near as the FAQ's own phrasings is no example of silence."""
    one = synthetic(12, 6, 0.5)
    messages = replace(one, far=np.concatenate([one.far, one.vectors])).messages()
    assert messages.set_aside > 0.8 * len(one.vectors)
    assert len(messages.far) == len(one.far) + len(one.vectors) - messages.set_aside
    assert {f"far {i}" for i in range(len(one.far))} <= {posed.text for posed in messages.far}


def test_messages_are_the_phrasings_themselves() -> None:
    """Every message has its text and its right entry; none of its candidates is reached by the message itself."""
    one = synthetic(12, 6, 0.5)
    messages = one.messages()
    texts = {item.text: item for item in one.items}
    assert len(messages.in_scope) == len(messages.near) == 72
    for posed in messages.in_scope:
        assert texts[posed.text].entry == posed.expected
        assert posed.text not in {one.items[c.item].text for c in posed.candidates}
        assert all(one.items[c.item].entry == c.entry for c in posed.candidates)
    assert {posed.text for posed in messages.near} == {posed.text for posed in messages.in_scope}
    assert {posed.expected for posed in (*messages.near, *messages.far)} == {None}
    for posed in messages.near:
        assert texts[posed.text].entry not in {c.entry for c in posed.candidates}


def test_messages_are_listed_by_kind() -> None:
    """All of them are those in scope, then near, then far."""
    messages = synthetic(3, 4, 0.5).messages()
    assert isinstance(messages, Messages)
    assert messages.all() == messages.in_scope + messages.near + messages.far
