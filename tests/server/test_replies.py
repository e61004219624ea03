"""Guards `server.replies`: what a client is told for each decision."""

from dataclasses import replace
from datetime import date
from typing import Any

import msgspec
import pytest

from intents.cascade import Outcome
from intents.decide import Decision, Option
from intents.entries import Entry, Faq, Header, Texts
from intents.index import FaqIndex
from server.pipeline import Resolved
from server.replies import reply

ENTRIES = (
    Entry(
        id="hours",
        question="When?",
        answer="**9 to 5**",
        url="/hours",
        follow_ups=("gone", "person", "over", "refunds"),
    ),
    Entry(id="refunds", question="Money back?", answer="Within a week."),
    Entry(id="person", question="A person?", answer="One moment.", kind="handoff"),
    Entry(id="gone", question="Gone?", answer="Yes.", enabled=False),
    Entry(id="over", question="Sale?", answer="Over.", valid_to=date(2026, 11, 22)),
)
DAY = date(2026, 11, 23)
TEXTS = Texts(no_match="No idea.", clarify="Which?", handoff="A colleague comes.")


@pytest.fixture
def index(shop_index: FaqIndex) -> FaqIndex:
    """An opened index with these entries in place of the shop's."""
    ids = {entry.id: position for position, entry in enumerate(ENTRIES)}
    return replace(shop_index, faq=Faq(header=Header(texts=TEXTS), entries=ENTRIES), _ids=ids)


def resolved(kind: Any, entry: int | None, *options: tuple[int, float]) -> Resolved:
    """A message that ended so."""
    chosen = tuple(Option(*option) for option in options)
    confidence = chosen[0].confidence if chosen else 0.0
    decision = Decision(kind, entry, confidence, chosen)
    outcome = Outcome(decision, (), "disabled", 0, decision)
    return Resolved(outcome, DAY, {"tokenize": 0.001, "queue": 0.002, "encode": 0.003, "search": 0.0000004})


def test_answer(index: FaqIndex) -> None:
    """An answer shows its entry's Markdown, names the entry, and suggests those follow-ups that can be asked today."""
    said = reply("7", resolved("answer", 0, (0, 0.98765), (1, 0.2)), index, 0.0123)
    assert msgspec.json.decode(msgspec.json.encode(said)) == {
        "type": "answer",
        "id": "7",
        "ref": said.ref,
        "decision": "answer",
        "text": "**9 to 5**",
        "entry": {"id": "hours", "question": "When?", "answer": "**9 to 5**", "url": "/hours"},
        "confidence": 0.9877,
        "candidates": [
            {"id": "hours", "question": "When?", "confidence": 0.9877},
            {"id": "refunds", "question": "Money back?", "confidence": 0.2},
        ],
        "follow_ups": [{"id": "person", "question": "A person?"}, {"id": "refunds", "question": "Money back?"}],
        "confirmation": "disabled",
        "timing_ms": {"total": 12.3, "tokenize": 1.0, "queue": 2.0, "encode": 3.0, "search": 0.0},
        "index": index.manifest.version,
    }


def test_clarify(index: FaqIndex) -> None:
    """A clarification shows the operator's words and the options, and names no entry."""
    said = reply("7", resolved("clarify", None, (1, 0.5), (0, 0.4)), index, 0.0)
    assert (said.text, said.entry, said.follow_ups) == ("Which?", None, ())
    assert [candidate.id for candidate in said.candidates] == ["refunds", "hours"]


def test_no_match(index: FaqIndex) -> None:
    """Without a match the operator's words are shown; what came nearest is told, and may be nothing."""
    said = reply("7", resolved("no_match", None, (1, 0.1)), index, 0.0)
    assert (said.text, said.entry, said.confidence) == ("No idea.", None, 0.1)
    said = reply("7", resolved("no_match", None), index, 0.0)
    assert (said.text, said.entry, said.confidence, said.candidates) == ("No idea.", None, 0.0, ())


def test_handoff(index: FaqIndex) -> None:
    """A hand-off names its entry and shows the operator's words, not the entry's."""
    said = reply("7", resolved("handoff", 2, (2, 0.99)), index, 0.0)
    assert said.text == "A colleague comes."
    assert said.entry is not None
    assert (said.entry.id, said.entry.url) == ("person", None)


def test_at_most_three_candidates(index: FaqIndex) -> None:
    """However many options a decision has, a client is shown the best three."""
    said = reply("7", resolved("clarify", None, (0, 0.5), (1, 0.4), (2, 0.3), (4, 0.2)), index, 0.0)
    assert [candidate.id for candidate in said.candidates] == ["hours", "refunds", "person"]


def test_refs_are_unique(index: FaqIndex) -> None:
    """The same reply made twice has two refs, long enough not to meet again on another worker."""
    refs = {reply("7", resolved("answer", 0, (0, 1.0)), index, 0.0).ref for _ in range(1000)}
    assert len(refs) == 1000
    assert min(map(len, refs)) >= 16
