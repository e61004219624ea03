"""The FAQ: its entries, and the rules that hold between them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal

import msgspec

from intents.errors import FaqError, Problem
from intents.normalise import normalise

# What a message that no entry answers is labelled with.
OUT_OF_SCOPE = "oos"

EntryKind = Literal["faq", "smalltalk", "handoff"]


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One FAQ item.

    Attributes:
        id: what clients and logs name it by; survives edits of its texts.
        question: the canonical way to ask it, as "did you mean" shows it.
        answer: Markdown.
        phrasings: other ways to ask it.
        url: where to read more; http(s), mailto, tel, or a path on the operator's site.
        tags: free labels.
        follow_ups: ids of entries to suggest next.
        kind: "smalltalk" is never offered as a "did you mean"; "handoff" passes the visitor on to a person.
        enabled: False leaves it out of the index.
        valid_from, valid_to: first and last day on which it may be answered; None is no limit.
    """

    id: str
    question: str
    answer: str
    phrasings: tuple[str, ...] = ()
    url: str | None = None
    tags: tuple[str, ...] = ()
    follow_ups: tuple[str, ...] = ()
    kind: EntryKind = "faq"
    enabled: bool = True
    valid_from: date | None = None
    valid_to: date | None = None

    def is_valid_on(self, day: date) -> bool:
        """Whether it may be answered on that day."""
        return (self.valid_from is None or self.valid_from <= day) and (self.valid_to is None or day <= self.valid_to)


class Texts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said when there is no single answer: the operator's own words, Markdown."""

    no_match: str = "Sorry, I don't know the answer to that."
    clarify: str = "Did you mean one of these?"
    handoff: str = "Let me pass you on to a person."


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands at the top of a FAQ.

    Attributes:
        name: the FAQ's name.
        language: its language, a BCP 47 tag.
        greeting: the operator's first words to a visitor, Markdown; None where there are none.
        texts: what is said when there is no single answer.
    """

    name: str = "FAQ"
    language: str = "en"
    greeting: str | None = None
    texts: Texts = Texts()


class Faq(msgspec.Struct, frozen=True, kw_only=True):
    """A whole FAQ that keeps all the rules; `assemble` makes them."""

    header: Header
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Located:
    """An entry, and where its fields stand.

    Attributes:
        entry: the entry.
        file: the file it was read from.
        lines: line of a field by its path within the entry; "" is the entry itself.
    """

    entry: Entry
    file: Path
    lines: dict[str, int] = field(default_factory=dict)

    def problem(self, path: str, message: str) -> Problem:
        """A problem at one of the entry's fields."""
        return Problem(self.file, self.lines.get(path, self.lines.get("", 0)), path, message)

    def place(self, path: str) -> str:
        """File and line of a field, for a sentence about another one."""
        return f"{self.file}:{self.lines.get(path, self.lines.get('', 0))}"


def assemble(header: Header, located: Sequence[Located]) -> Faq:
    """Make a FAQ of entries, if they keep the rules.

    Raises:
        FaqError: with every problem found.
    """
    problems = [
        *(problem for one in located for problem in _within(one)),
        *_duplicate_ids(located),
        *_shared_phrasings(located),
        *_lost_follow_ups(located),
    ]
    if problems:
        raise FaqError(problems)
    return Faq(header=header, entries=tuple(one.entry for one in located))


def texts_of(entry: Entry) -> Iterator[tuple[str, str]]:
    """Every way to ask an entry, with the path of its field: the question first."""
    yield "question", entry.question
    for position, phrasing in enumerate(entry.phrasings):
        yield f"phrasings[{position}]", phrasing


def _within(one: Located) -> Iterator[Problem]:
    entry = one.entry
    named: Iterable[tuple[str, str]] = [("id", entry.id), *texts_of(entry), ("answer", entry.answer)]
    for path, text in named:
        if not text.strip():
            yield one.problem(path, "is empty; write a text")
    if any(character.isspace() or not character.isprintable() for character in entry.id):
        yield one.problem("id", f"{entry.id!r} has white space or control characters; use letters, digits and hyphens")
    if entry.id == OUT_OF_SCOPE:
        yield one.problem("id", f"{entry.id!r} means out of scope in files of messages; choose another")
    if len(entry.id) > 128:
        yield one.problem("id", "is longer than 128 characters")
    if entry.url is not None and not entry.url.startswith(("https://", "http://", "mailto:", "tel:", "/")):
        yield one.problem("url", f"{entry.url!r} is not a link; begin it with https://, http://, mailto:, tel: or /")
    if entry.valid_from and entry.valid_to and entry.valid_to < entry.valid_from:
        yield one.problem("valid_to", f"{entry.valid_to} is before valid_from ({entry.valid_from})")


def _duplicate_ids(located: Sequence[Located]) -> Iterator[Problem]:
    first: dict[str, Located] = {}
    for one in located:
        other = first.setdefault(one.entry.id, one)
        if other is not one and one.entry.id.strip():
            yield one.problem("id", f"{one.entry.id!r} is taken by the entry at {other.place('id')}; ids are unique")


def _shared_phrasings(located: Sequence[Located]) -> Iterator[Problem]:
    first: dict[str, tuple[Located, str]] = {}
    for one in located:
        for path, text in texts_of(one.entry):
            if not text.strip():
                continue
            other, other_path = first.setdefault(normalise(text), (one, path))
            if other is not one:
                yield one.problem(
                    path,
                    f"{text!r} belongs to the entry {other.entry.id!r} already ({other.place(other_path)}); "
                    "a phrasing leads to one entry",
                )


def _lost_follow_ups(located: Sequence[Located]) -> Iterator[Problem]:
    ids = {one.entry.id for one in located}
    for one in located:
        for position, target in enumerate(one.entry.follow_ups):
            if target not in ids:
                yield one.problem(f"follow_ups[{position}]", f"{target!r} is no entry's id")
            elif target == one.entry.id:
                yield one.problem(f"follow_ups[{position}]", f"{target!r} is the entry itself")
