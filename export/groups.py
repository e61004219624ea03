"""Messages with their candidates: what a cross-encoder is trained on, and judged by."""

from dataclasses import dataclass

from export.runtime.render import render


@dataclass(frozen=True, slots=True)
class Candidate:
    """An entry, as far as a cross-encoder is shown it.

    Attributes:
        question: the entry's own way to ask, or empty.
        phrasing: its way to ask that is most like the message, or empty where that is the question.
        answer: the answer as plain text, or empty.
        score: the bi-encoder's; not shown.
        ways: some of the entry's ways to ask; training may read one of them for the question.
    """

    question: str
    phrasing: str
    answer: str
    score: float
    ways: tuple[str, ...] = ()

    def text(self) -> str:
        """As a server shows it."""
        return render(self.question, self.phrasing, self.answer)


@dataclass(frozen=True, slots=True)
class Group:
    """A message and its candidates.

    Attributes:
        message: what a visitor typed.
        candidates: best first, by the bi-encoder; at least one.
        right: which of them answers it, or None.
    """

    message: str
    candidates: tuple[Candidate, ...]
    right: int | None
