"""What visitors say of answers, and where it is recorded."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one visitor says of one answer.

    Attributes:
        ref: the answer's, as the client gives it; it may be that of no answer.
        helpful: whether the answer helped.
        comment: the visitor's own words, or None.
        client: name and version of the client's software, or None where it did not say.
        locale: the visitor's language, a BCP 47 tag, or None likewise.
    """

    ref: str
    helpful: bool
    comment: str | None
    client: str | None
    locale: str | None


class FeedbackSink(Protocol):
    """Records feedback."""

    async def record(self, verdict: Verdict) -> None:
        """Record a verdict, and return once it is durable: whoever gave it is told so then.

        Cancelling stops the waiting, because the client has left; the verdict may be recorded all the same.

        Raises:
            RequestError: it cannot be recorded; the client is told its code. Any other exception becomes `internal`.
        """
        ...
