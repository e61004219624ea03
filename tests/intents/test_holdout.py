"""The messages that calibration learns from."""

from dataclasses import replace

import numpy as np

from intents.holdout import Messages, choose_weight, hold_out
from intents.items import Item
from tests.intents.synthetic import synthetic


def test_large_entries_do_not_drown_the_others() -> None:
    """At most twenty phrasings of an entry are held out."""
    held_out = synthetic(3, 50, 0.5).hold_out()
    assert np.bincount(held_out.expected).tolist() == [20, 20, 20]


def test_a_held_out_phrasing_does_not_find_itself() -> None:
    """A phrasing is scored against its entry's others, and a question's own answer goes with the question."""
    axes = np.eye(40, dtype=np.float32)
    items = [Item(e, f"{e}-{i}", "phrasing" if i < 3 else "answer") for e in range(10) for i in range(4)]
    owners = np.array([item.entry for item in items])
    vectors = axes.copy()
    vectors[3] = vectors[0]  # an answer that is all question
    held_out = hold_out(vectors, owners, items, neighbours=40)
    assert len(held_out.in_scope) == 30
    for found in held_out.in_scope:
        assert found.nearest.max() == 0


def test_a_left_out_entry_is_not_found() -> None:
    """A near out-of-scope message is a phrasing whose whole entry is gone."""
    held_out = synthetic(12, 6, 0.5).hold_out()
    assert len(held_out.near) == len(held_out.expected)
    for found, expected in zip(held_out.near, held_out.expected, strict=True):
        assert expected not in found.entries
        assert len(found.entries) == 11


def test_the_weight_is_the_one_that_finds_most() -> None:
    """Where centroids help they get weight, and where they do not they get none."""
    assert choose_weight(synthetic(30, 6, 1.2).hold_out()) > 0
    assert choose_weight(synthetic(30, 6, 0.05).hold_out()) == 0


def test_messages_that_the_faq_seems_to_answer_are_set_aside() -> None:
    """A shipped message that lies as near as the FAQ's own phrasings is no example of silence."""
    one = synthetic(12, 6, 0.5)
    messages = replace(one, far=np.concatenate([one.far, one.vectors[:10]])).messages()
    assert messages.set_aside >= 10
    assert len(messages.far) == len(one.far) + 10 - messages.set_aside
    assert len(messages.far) > 100
    assert not {posed.text for posed in messages.far} & {f"far {len(one.far) + i}" for i in range(10)}


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
    assert [posed.text for posed in messages.near] == [posed.text for posed in messages.in_scope]
    assert {posed.expected for posed in (*messages.near, *messages.far)} == {None}
    for posed in messages.near:
        assert texts[posed.text].entry not in {c.entry for c in posed.candidates}


def test_messages_are_listed_by_kind() -> None:
    """All of them are those in scope, then near, then far."""
    messages = synthetic(3, 4, 0.5).messages()
    assert isinstance(messages, Messages)
    assert messages.all() == messages.in_scope + messages.near + messages.far
