"""What a cross-encoder's logits change: pure, and monotone in scores, evidence and logits.

A candidate gets *joint evidence*, a weighted sum of its evidence and the cross-encoder's logit. A candidate that was
not read counts with the logit that its evidence lets expect, so that any number of logits will do, and one is enough.
`decide` follows a policy of its own for joint evidence.

Scores are joined with logits in the same way, and margins are between these. Where candidates are ranked again a logit
counts for less: a cross-encoder knows better whether an entry answers a message than which of two does, and the
bi-encoder's heads know the FAQ. A candidate's joint score and evidence are at most those of the ones ranked before it.

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
    """How evidence and logit are joined; no weight is negative, so that no candidate loses by a higher one of them.

    Attributes:
        evidence, logit: their weights.
        imputed, imputed_by_evidence: the logit to expect of a candidate is `imputed + imputed_by_evidence * evidence`.
        order: which share of the logit's weight counts where candidates are ranked, 0 to 1.
    """

    evidence: float
    logit: float
    imputed: float
    imputed_by_evidence: float
    order: float

    def of(self, evidence: float, logit: float | None) -> float:
        """A candidate's joint evidence; 0 is that of a candidate without evidence that was not read.

        Args:
            evidence: the bi-encoder's.
            logit: the cross-encoder's, or None for a candidate that it did not read.
        """
        return self._join(evidence, evidence, logit, 1.0)

    def _join(self, value: float, evidence: float, logit: float | None, share: float) -> float:
        above = self.imputed_by_evidence * evidence if logit is None else logit - self.imputed
        return self.evidence * value + share * self.logit * above

    def rank(self, candidates: Sequence[Candidate], logits: Sequence[float]) -> list[Candidate]:
        """The same candidates with joint scores, margins and evidence, best first; equal ones keep their order.

        Args:
            candidates: best first by their scores; at least one.
            logits: of the first of them, finite.
        """
        read = [*logits, *[None] * (len(candidates) - len(logits))]
        ranked = sorted(
            zip(candidates, read, strict=True),
            key=lambda one: -self._join(one[0].score, one[0].evidence, one[1], self.order),
        )
        scores = list(accumulate((self._join(c.score, c.evidence, logit, 1.0) for c, logit in ranked), min))
        evidence = accumulate((self.of(c.evidence, logit) for c, logit in ranked), min)
        top = scores[0]
        # The best entry that was not retrieved is at most as near as a lone candidate's margin says.
        lone = candidates[0].score - candidates[0].margin
        second = scores[1] if len(scores) > 1 else min(self.of(lone, None), top)
        return [
            structs.replace(candidate, score=score, margin=score - (top if place else second), evidence=own)
            for place, ((candidate, _), score, own) in enumerate(zip(ranked, scores, evidence, strict=True))
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
        joint: how logits are joined with what the bi-encoder found.
        policy: how joint evidence decides.
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
        """Whether more evidence or a higher logit can only strengthen a decision."""
        weights = (self.joint.evidence, self.joint.logit, self.joint.imputed_by_evidence, self.joint.order)
        return min(weights) >= 0 and self.policy.is_monotone() and self.candidates >= 1
