"""What the index holds: the ways in which a message may reach an entry, as texts to encode."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

from export.runtime.render import render
from intents.entries import Entry, texts_of

Role = Literal["phrasing", "answer"]

_MARKDOWN = MarkdownIt("commonmark", {"html": False})


@dataclass(frozen=True, slots=True)
class Item:
    """One vector of the index.

    Attributes:
        entry: position of its entry in the FAQ.
        text: what is encoded.
        role: "phrasing" is one way to ask; "answer" is the question joined with its answer, which finds messages that
            use the answer's words.
    """

    entry: int
    text: str
    role: Role


def items_of(entries: Sequence[Entry]) -> list[Item]:
    """The items of every enabled entry, entry by entry, its question first."""
    return [item for position, entry in enumerate(entries) if entry.enabled for item in _items(position, entry)]


def _items(position: int, entry: Entry) -> Iterator[Item]:
    for text in ways_to_ask(entry):
        yield Item(position, text, "phrasing")
    answer = answer_of(entry)
    if answer is not None:
        yield Item(position, f"{entry.question}\n{answer}", "answer")


def ways_to_ask(entry: Entry) -> tuple[str, ...]:
    """The distinct texts of an entry's phrasings, its question first: its items stand in this order."""
    return tuple(dict.fromkeys(text for _, text in texts_of(entry)))


def answer_of(entry: Entry) -> str | None:
    """The answer as plain text, or None where its words do not say what the entry is about.

    Small talk and hand-off answers speak of everything the bot can do, and would attract what they only mention. An
    answer that is no more than the id (intent data sets have none) has no words to go by.
    """
    return plain_text(entry.answer) if entry.kind == "faq" and entry.answer != entry.id else None


def shown(
    entry: Entry, phrasing: str | None, answer: str | None, *, without: str | None = None
) -> tuple[str, str, str]:
    """What a cross-encoder is shown of an entry: its question, another phrasing, and its answer; each may be empty.

    Args:
        entry: the entry.
        phrasing: its phrasing that is most like the message, or None.
        answer: see `answer_of`.
        without: a phrasing to leave out as if the entry did not have it, also where that is the question.
    """
    ways = [text for text in dict.fromkeys((entry.question, phrasing)) if text is not None and text != without]
    question, best = (*ways, "", "")[:2]
    return question, best, answer or ""


def rendered(entry: Entry, phrasing: str | None, answer: str | None, *, without: str | None = None) -> str:
    """An entry as text for the cross-encoder; arguments as `shown`."""
    return render(*shown(entry, phrasing, answer, without=without))


def plain_text(markdown: str) -> str:
    """What a reader sees of a Markdown text, on one line."""
    words = " ".join(_texts(_MARKDOWN.parse(markdown)))
    return " ".join(words.split())


def _texts(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        if token.type == "inline" and token.children:
            yield "".join(" " if child.type.endswith("break") else child.content for child in token.children)
        elif token.type in {"fence", "code_block"}:
            yield token.content
