"""From an outcome to the `answer` that a client gets, and to what is recorded of it; pure but for the `ref`."""

import secrets
import time
from base64 import urlsafe_b64encode
from datetime import date

from intents.decide import MAX_OPTIONS
from intents.entries import Entry
from intents.index import FaqIndex
from server.messages import Answer, CandidateView, EntryView, FollowUp
from server.pipeline import Resolved
from server.recorder import Asked


def reply(request_id: str, resolved: Resolved, index: FaqIndex, total: float) -> Answer:
    """The reply to a request.

    Args:
        request_id: the request's id.
        resolved: how it ended.
        index: the index that answered.
        total: seconds from the arrival of its frame until now.
    """
    outcome, entries = resolved.outcome, index.faq.entries
    decision = outcome.decision
    entry = None if decision.entry is None else entries[decision.entry]
    texts = index.faq.header.texts
    said = {"clarify": texts.clarify, "no_match": texts.no_match, "handoff": texts.handoff}
    return Answer(
        id=request_id,
        ref=_new_ref(),
        decision=decision.kind,
        text=entry.answer if entry is not None and decision.kind == "answer" else said[decision.kind],
        entry=None if entry is None else EntryView(entry.id, entry.question, entry.answer, entry.url),
        confidence=round(decision.confidence, 4),
        candidates=tuple(
            CandidateView(entries[o.entry].id, entries[o.entry].question, round(o.confidence, 4))
            for o in decision.options[:MAX_OPTIONS]
        ),
        follow_ups=() if entry is None else _follow_ups(entry, index, resolved.day),
        confirmation=outcome.confirmation,
        timing_ms=_milliseconds(resolved, total),
        index=index.manifest.version,
    )


def _new_ref() -> str:
    """One that nobody has, and nobody guesses: the second, and 96 random bits.

    It begins with the time so that a journal's index of them grows at one place: at random ones, every record of a
    group would touch a page of its own.
    """
    return urlsafe_b64encode(int(time.time()).to_bytes(4) + secrets.token_bytes(12)).rstrip(b"=").decode()


def record_of(text: str, answer: Answer, connection: str, visitor: str | None) -> Asked:
    """What is recorded of an answered ask.

    Args:
        text: what was asked.
        answer: what the client gets.
        connection: the connection's id.
        visitor: who asked, or None.
    """
    return Asked(
        ref=answer.ref,
        connection=connection,
        visitor=visitor,
        text=text,
        decision=answer.decision,
        entry=None if answer.entry is None else answer.entry.id,
        confidence=answer.confidence,
        confirmation=answer.confirmation,
        total_ms=answer.timing_ms["total"],
        index_version=answer.index,
    )


def _follow_ups(entry: Entry, index: FaqIndex, day: date) -> tuple[FollowUp, ...]:
    named = (index.entry_by_id(target) for target in entry.follow_ups)
    return tuple(FollowUp(e.id, e.question) for e in named if e and e.enabled and e.is_valid_on(day))


def _milliseconds(resolved: Resolved, total: float) -> dict[str, float]:
    stages = {str(stage): round(1000 * seconds, 3) for stage, seconds in resolved.stages.items()}
    return {"total": round(1000 * total, 3), **stages}
