"""What a cross-encoder's logits change: pure, and monotone in scores and logits.

A candidate gets a *joint score*, a weighted sum of the bi-encoder's score and the cross-encoder's logit. A candidate
that was not read counts with the logit that its score lets expect, so that any number of logits will do, and one is
enough. `decide` follows a policy of its own for joint scores.

The candidates are ranked again too, and there a logit counts for less: a cross-encoder knows better whether an entry
answers a message than which of two does, and the bi-encoder's heads know the FAQ. A candidate's joint score is at most
that of those ranked before it.

All numbers are fitted by the build (`intents.calibrate_confirmer`).
"""

from collections.abc import Callable, Sequence
from itertools import accumulate

import msgspec
from msgspec import structs

from intents.candidates import Candidate
from intents.decide import Policy
from intents.search import Floats

Pair = tuple[str, str]
"""A message, and a candidate as text."""

Score = Callable[[Sequence[Pair]], Floats]
"""Gives (n,) logits of n pairs."""


class Joint(msgspec.Struct, frozen=True, kw_only=True):
    """How score and logit are joined; no weight is negative, so a joint score never falls when one of them rises.

    Attributes:
        score, logit: their weights.
        imputed, imputed_by_score: the logit to expect of a candidate is `imputed + imputed_by_score * score`.
        order: which share of the logit's weight counts where candidates are ranked, 0 to 1.
    """

    score: float
    logit: float
    imputed: float
    imputed_by_score: float
    order: float

    def of(self, score: float, logit: float | None) -> float:
        """A candidate's joint score; 0 is that of a candidate with score 0 that was not read.

        Args:
            score: the bi-encoder's.
            logit: the cross-encoder's, or None for a candidate that it did not read.
        """
        return self.score * score + self.logit * self._above(score, logit)

    def _above(self, score: float, logit: float | None) -> float:
        return self.imputed_by_score * score if logit is None else logit - self.imputed

    def _rank(self, score: float, logit: float | None) -> float:
        return self.score * score + self.order * self.logit * self._above(score, logit)

    def rank(self, candidates: Sequence[Candidate], logits: Sequence[float]) -> list[Candidate]:
        """The same candidates with joint scores and their margins, best first; equal ones keep their order.

        Args:
            candidates: best first by their scores; at least one.
            logits: of the first of them, finite.
        """
        read = [*logits, *[None] * (len(candidates) - len(logits))]
        ranked = sorted(zip(candidates, read, strict=True), key=lambda pair: -self._rank(pair[0].score, pair[1]))
        scores = list(accumulate((self.of(candidate.score, logit) for candidate, logit in ranked), min))
        top = scores[0]
        # The best entry that was not retrieved is at most as near as a lone candidate's margin says.
        lone = candidates[0].score - candidates[0].margin
        second = scores[1] if len(scores) > 1 else min(self.of(lone, None), top)
        return [
            structs.replace(candidate, score=score, margin=score - (top if place else second))
            for place, ((candidate, _), score) in enumerate(zip(ranked, scores, strict=True))
        ]


class Confirmer(msgspec.Struct, frozen=True, kw_only=True):
    """How messages are confirmed.

    Attributes:
        model: name of the cross-encoder.
        fingerprint: of its bundle; what is fitted here is of its logits and no other's.
        pair_tokens: what a pair of message and candidate is cut to.
        candidates: how many are read, if time allows.
        confirm_from, confirm_to: the bi-encoder's least and greatest confidence with which a message is confirmed:
            beyond them confirmation hardly ever changes what is decided. Above 1, none is.
        joint: how scores and logits are joined.
        policy: how joint scores decide.
    """

    model: str
    fingerprint: str
    pair_tokens: int
    candidates: int
    confirm_from: float
    confirm_to: float
    joint: Joint
    policy: Policy

    def may_change(self, confidence: float) -> bool:
        """Whether confirming a message can change its decision.

        Args:
            confidence: of the first candidate, by the bi-encoder alone.
        """
        return self.confirm_from <= confidence <= self.confirm_to

    def is_monotone(self) -> bool:
        """Whether a higher score or logit can only strengthen a decision."""
        weights = (self.joint.score, self.joint.logit, self.joint.imputed_by_score, self.joint.order)
        return min(weights) >= 0 and self.policy.is_monotone() and self.candidates >= 1
