"""What is assumed of a FAQ that is too small to be calibrated on itself: that messages fare as on other small FAQs.

A FAQ whose entries have one way to ask each has nothing to hold out. Shipped with faqwire are the figures of messages
that were put to FAQs written for it, each cut down to questions and answers, none of which the shipped cross-encoder
was trained on: their candidates' scores and logits, and which one was right. They hold for the models that they were
measured with, and for no others. `bench/prior.py` makes them.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from intents.candidates import Candidate, Weights
from intents.entries import Entry
from intents.holdout import Messages, Posed

ASSUMED = (
    "too few phrasings can be held out, so this FAQ's visitors are assumed to fare as those of {faqs} other FAQs with "
    "one way to ask an entry, and thresholds allow half of the errors on those: add phrasings, and see with `faqwire "
    "eval`"
)
SHIPPED_PRIOR = Path(__file__).parent / "data" / "prior.json"


class Case(msgspec.Struct, frozen=True, array_like=True):
    """A message that was put to a FAQ.

    Attributes:
        scores, evidence: of its candidates, best first.
        logits: of the first of them.
        right: which candidate is right; -1 for none of them, though it was in scope, and None out of scope.
    """

    scores: tuple[float, ...]
    evidence: tuple[float, ...]
    logits: tuple[float, ...]
    right: int | None


class Prior(msgspec.Struct, frozen=True, kw_only=True):
    """Messages that were put to other FAQs.

    Attributes:
        faqs: how many those were.
        model_fingerprint: of the bi-encoder that gave the scores.
        confirmer_fingerprint, pair_tokens: of the cross-encoder that gave the logits, and how it cut its pairs.
        weights: with which the scores were joined.
        in_scope, near, far: the messages, by kind.
    """

    faqs: int
    model_fingerprint: str
    confirmer_fingerprint: str
    pair_tokens: int
    weights: Weights
    in_scope: tuple[Case, ...]
    near: tuple[Case, ...]
    far: tuple[Case, ...]

    @property
    def entries(self) -> list[Entry]:
        """Entries such as its messages' candidates are of: their positions are their ranks."""
        most = max(len(case.scores) for case in (*self.in_scope, *self.near, *self.far))
        return [Entry(id=str(rank), question=str(rank), answer=str(rank)) for rank in range(most)]

    def messages(self, notes: Sequence[str]) -> Messages:
        """Its messages as those of a calibration; their texts, entries and items are not known."""
        return Messages(
            in_scope=[_posed(case) for case in self.in_scope],
            near=[_posed(case) for case in self.near],
            far=[_posed(case) for case in self.far],
            notes=(*notes, ASSUMED.format(faqs=self.faqs)),
        )

    def fits_confirmer(self, fingerprint: str, pair_tokens: int) -> bool:
        """Whether its logits are those of this cross-encoder, reading pairs of so many tokens."""
        return (self.confirmer_fingerprint, self.pair_tokens) == (fingerprint, pair_tokens)

    def logits(self, candidates: int) -> list[list[float]]:
        """The logits of each message's first candidates, in the order of `Messages.all()`."""
        return [list(case.logits[:candidates]) for case in (*self.in_scope, *self.near, *self.far)]


def read_prior(path: Path = SHIPPED_PRIOR) -> Prior:
    """Read a prior."""
    return msgspec.json.decode(path.read_bytes(), type=Prior)


def _posed(case: Case) -> Posed:
    top, second = case.scores[0], case.scores[1] if len(case.scores) > 1 else 0.0
    candidates = [
        Candidate(entry, score, score - (top if entry else second), entry, evidence)
        for entry, (score, evidence) in enumerate(zip(case.scores, case.evidence, strict=True))
    ]
    return Posed("", case.right, candidates)
