"""What the index holds: the ways in which a message may reach an entry, as texts to encode."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

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
    seen = set()
    for _, text in texts_of(entry):
        if text not in seen:
            seen.add(text)
            yield Item(position, text, "phrasing")
    # Small talk and hand-off answers speak of everything the bot can do, and would attract what they only mention. An
    # answer that is no more than the id (intent data sets have none) has no words to search by.
    if entry.kind == "faq" and entry.answer != entry.id:
        yield Item(position, f"{entry.question}\n{plain_text(entry.answer)}", "answer")


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
