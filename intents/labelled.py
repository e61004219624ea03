"""Labelled messages: what visitors typed, and the entry that should answer it, or none."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from intents.entries import OUT_OF_SCOPE
from intents.errors import MessagesError, Problem
from intents.formats.table import TableError, read_table


@dataclass(frozen=True)
class Labelled:
    """A message with the id of its entry; None is out of scope."""

    text: str
    expected: str | None


def read_labelled(path: Path, ids: Collection[str]) -> tuple[list[Labelled], list[Problem]]:
    """Read a CSV with the columns `text` and `expected` (or `intent`); empty or `oos` means out of scope.

    Returns:
        The messages, and the rows that were left out because they have no text.

    Raises:
        MessagesError: the file is not such a CSV, has no messages, or an id that the FAQ lacks.
    """
    messages: list[Labelled] = []
    left_out: list[Problem] = []
    try:
        for line, row in read_table(path, [("text", "expected"), ("text", "intent")]):
            column = "expected" if "expected" in row else "intent"
            text, expected = row["text"].strip(), row[column].strip()
            if not text:
                left_out.append(Problem(path, line, "text", "is empty; the row is left out"))
            elif expected in {"", OUT_OF_SCOPE}:
                messages.append(Labelled(text, None))
            elif expected in ids:
                messages.append(Labelled(text, expected))
            else:
                raise MessagesError(
                    f"{path}:{line}: {column}: {expected!r} is no entry of the FAQ, or a disabled one; correct it, or "
                    "leave it empty for a message that nothing answers"
                )
    except TableError as exc:
        raise MessagesError(str(exc)) from exc
    if not messages:
        raise MessagesError(f"{path}: has no messages")
    return messages, left_out


def read_out_of_scope(path: Path) -> list[str]:
    """The texts of a CSV with the columns `text,domain`, such as the set that is shipped for calibration.

    Raises:
        MessagesError: the file is not such a CSV.
    """
    try:
        return [row["text"].strip() for _, row in read_table(path, [("text", "domain")]) if row["text"].strip()]
    except TableError as exc:
        raise MessagesError(str(exc)) from exc
