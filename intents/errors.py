"""What can go wrong with FAQs, messages and indexes; the root of the tree is `export.errors.FaqwireError`.

FaqwireError
+-- FaqError            a FAQ file is missing or has problems: one line each, with file, line and field
+-- MessagesError       a CSV of labelled messages cannot be used
+-- SealError
    +-- FaqIndexError   an index is missing, damaged, of a newer format, or belongs to another model
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from export.errors import FaqwireError, SealError


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong in a FAQ file.

    Attributes:
        file: the file.
        line: the line, counted from 1; 0 where none can be named.
        field: the path of the field within its entry ("phrasings[2]"), or "".
        message: what is wrong and what is expected.
    """

    file: Path
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        """The problem as compilers write it: file, line, field, message."""
        place = f"{self.file}:{self.line}" if self.line else f"{self.file}"
        return f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"


class FaqError(FaqwireError):
    """A FAQ cannot be used; `problems` holds everything that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(map(str, self.problems)))


class MessagesError(FaqwireError):
    """A CSV of labelled messages cannot be used."""


class FaqIndexError(SealError):
    """An index cannot be used."""
