"""How a cross-encoder's logits count, and when they are worth asking for.

The cross-encoder reads a sample of the messages that the bi-encoder was calibrated on (`intents.reading`). From its
logits are fitted

- the joint evidence: a logistic regression over pairs, on evidence and logit, without negative weights
- the logit to expect of a candidate that was not read: a line over its evidence
- confidence and thresholds of the joint evidence, as those of the bi-encoder alone
- the band of the bi-encoder's confidence in which messages are confirmed: of all that hold 95 % of the decisions that
  confirmation changes, the one with the fewest messages. Beyond it the bi-encoder's own decision stands, so the
  precision that the thresholds are chosen for is that of both together. Where confidence would hardly become better, no
  message is confirmed.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from export.bundle import BundleManifest
from intents.calibrate import (
    Booleans,
    Doubles,
    Samples,
    confidences,
    expected_of,
    find_answer_at,
    find_clarify_at,
    fit_monotone,
    fit_policy,
    log_loss,
    samples_of,
    share_of,
)
from intents.candidates import Candidate
from intents.confirm import Confirmer, Joint
from intents.decide import Decision, Policy, decide
from intents.entries import Entry
from intents.holdout import Messages
from intents.manifest import Confirmed
from intents.reading import Read

KEPT = 0.95
# How much of a logit's weight counts where candidates are ranked: of 0, 0.2, 0.33, 0.5 and 1 the share with the most
# right first candidates on the FAQs that the shipped cross-encoder was chosen by.
ORDER = 0.2
NEVER = 1.01  # no confidence is so high
# By which share confirming has to lower the log loss of confidence: with a cross-encoder that knows such FAQs it is
# more than a tenth, and a few thousandths are chance.
WORTH = 0.01
UNCHANGED = "this cross-encoder changes no decision on any of these messages: none is confirmed by it"
NOTHING = (
    "this cross-encoder tells next to nothing that the bi-encoder does not know: no message is confirmed by it (it "
    "would lower the log loss of confidence by {gain:.1%}; {worth:.0%} would be worth the time)"
)


def fit_confirmer(
    read: Read,
    bundle: BundleManifest,
    entries: Sequence[Entry],
    alone: Policy,
    *,
    candidates: int,
    target_precision: float,
    out_of_scope_share: float,
) -> tuple[Confirmer, Confirmed]:
    """Compute how an index confirms.

    Args:
        read: what the cross-encoder made of a sample of messages.
        bundle: the cross-encoder's, cut to the length that pairs are cut to.
        entries: the FAQ's.
        alone: how the bi-encoder alone decides.
        candidates: how many are read of a message.
        target_precision: of answered messages, at the expected share.
        out_of_scope_share: expected share of messages that the FAQ does not answer.
    """
    posed = read.messages.all()
    smalltalk = frozenset(i for i, entry in enumerate(entries) if entry.kind == "smalltalk")

    def sampled(ranked: Sequence[Sequence[Candidate]]) -> Samples:
        return samples_of(read.messages, ranked, out_of_scope_share, smalltalk)

    before = sampled([p.candidates for p in posed])
    joint = _fit_joint(read, before.weight)
    ranked = [joint.rank(p.candidates, k) if k else [] for p, k in zip(posed, read.logits, strict=True)]
    after = sampled(ranked)
    policy = fit_policy(after, target_precision)
    # Decided as they will be, so that nothing depends on how two pieces of code round.
    own = [decide(p.candidates, entries, alone) for p in posed]
    values = np.array([alone.confidence.of(p.candidates[0]) if p.candidates else -1.0 for p in posed])
    changes = [_differ(a, decide(found, entries, policy)) for a, found in zip(own, ranked, strict=True)]
    gain = _gain(before, after, target_precision)
    changed = np.array(changes) if joint.logit and gain >= WORTH else np.zeros(len(posed), dtype=bool)
    confirm_from, confirm_to = find_band(values, changed, before.weight)
    inside = (confirm_from <= values) & (values <= confirm_to)
    policy = _with_thresholds(policy, after, own, before, inside, target_precision)
    final = [
        decide(found, entries, policy) if confirmed else decision
        for decision, found, confirmed in zip(own, ranked, inside, strict=True)
    ]
    expected = expected_of(
        np.where(inside, confidences(policy.confidence, after)[0], np.maximum(values, 0.0)),
        np.where(inside, after.right, before.right),
        before,
        _are(final, "answer", "handoff"),
        _are(final, "clarify"),
    )
    confirmer = Confirmer(
        model=bundle.source.model,
        fingerprint=bundle.fingerprint,
        pair_tokens=bundle.max_tokens,
        candidates=candidates,
        confirm_from=confirm_from,
        confirm_to=confirm_to,
        joint=joint,
        policy=policy,
    )
    rightly = [_answered_rightly(decisions, read.messages) for decisions in (own, final)]
    return confirmer, Confirmed(
        **msgspec.structs.asdict(expected),
        messages=len(posed),
        pairs=read.pairs,
        share_confirmed=share_of(inside, np.ones(len(posed), dtype=bool), before.weight),
        notes=(*read.notes, *_notes(inside, gain, *rightly)),
    )


def _fit_joint(read: Read, weight: Doubles) -> Joint:
    """The weights of evidence and logit, and the line of imputed logits, over all pairs that were read."""
    posed = read.messages.all()
    rows = [
        (candidate.evidence, logit, candidate.entry == p.expected, mass / len(logits))
        for p, logits, mass in zip(posed, read.logits, weight, strict=True)
        for candidate, logit in zip(p.candidates, logits, strict=False)
    ]
    if len({logit for _, logit, _, _ in rows}) < 2:
        return Joint(evidence=1.0, logit=0.0, imputed=0.0, imputed_by_evidence=0.0, order=ORDER)
    evidence, logit, right, mass = (np.array(column) for column in zip(*rows, strict=True))
    slope, at_zero = _line(evidence, logit, mass)
    spread = float(logit.std())
    # Scaled, so that what is a large logit of one model and a small one of another are fitted alike.
    _, weights = fit_monotone({"evidence": evidence, "logit": logit / spread}, right, mass)
    if not any(weights.values()):
        weights["evidence"] = 1.0
    return Joint(
        evidence=weights["evidence"],
        logit=weights["logit"] / spread,
        imputed=at_zero,
        imputed_by_evidence=slope,
        order=ORDER,
    )


def _line(x: Doubles, y: Doubles, weight: Doubles) -> tuple[float, float]:
    """Slope, at least 0, and value at 0 of the weighted least-squares line."""
    middle, height = np.average(x, weights=weight), np.average(y, weights=weight)
    variance = float(np.average((x - middle) ** 2, weights=weight))
    slope = max(0.0, float(np.average((x - middle) * (y - height), weights=weight)) / variance) if variance else 0.0
    return slope, float(height - slope * middle)


def _gain(before: Samples, after: Samples, target: float) -> float:
    """By which share the log loss of confidence falls with the logits, both maps being fitted to the same messages."""
    losses = [
        log_loss(found.right, confidences(fit_policy(found, target).confidence, found)[0], found.weight)
        for found in (before, after)
    ]
    return 1.0 - losses[1] / losses[0] if losses[0] else 0.0


def _differ(one: Decision, other: Decision) -> bool:
    return (one.kind, one.entry) != (other.kind, other.entry)


def find_band(values: Doubles, changed: Booleans, weight: Doubles, kept: float = KEPT) -> tuple[float, float]:
    """The band of confidence with the fewest messages that holds nearly all changed decisions.

    Args:
        values: (n,) confidences.
        changed: (n,) whether confirmation changes the decision.
        weight: (n,) of each message.
        kept: which weighted share of the changes to hold.

    Returns:
        Its ends, both within it; both above 1 where nothing is changed.
    """
    if not changed.any():
        return NEVER, NEVER
    levels, level = np.unique(values, return_inverse=True)  # a threshold cannot part equals
    mass = np.concatenate([[0.0], np.cumsum(np.bincount(level, weights=weight))])
    moved = np.concatenate([[0.0], np.cumsum(np.bincount(level, weights=weight * changed))])
    needed = kept * moved[-1] - 1e-12
    bands = []
    for start in range(len(levels)):
        end = int(np.searchsorted(moved, moved[start] + needed))
        if end < len(moved):
            bands.append((float(mass[end] - mass[start]), start, end))
    _, start, end = min(bands)
    return float(levels[start]), float(levels[end - 1])


def _with_thresholds(
    policy: Policy, after: Samples, own: Sequence[Decision], before: Samples, inside: Booleans, target: float
) -> Policy:
    """The policy with thresholds for the messages within the band, those beyond it being decided already."""
    if not inside.any():
        return policy
    top, options = confidences(policy.confidence, after)
    settled = np.where(_are(own, "answer", "handoff"), 1.0, -1.0)
    right = np.where(inside, after.right, before.right)
    answer_at = find_answer_at(np.where(inside, top, settled), right, after.weight, target)
    return Policy(
        confidence=policy.confidence,
        answer_at=answer_at,
        clarify_at=find_clarify_at(options, after, answer_at),
    )


def _are(decisions: Sequence[Decision], *kinds: str) -> Booleans:
    return np.array([decision.kind in kinds for decision in decisions])


def _answered_rightly(decisions: Sequence[Decision], messages: Messages) -> float:
    """Share of in-scope messages that get their own entry's answer."""
    ours = zip(messages.in_scope, decisions, strict=False)
    return sum(decision.entry == posed.expected for posed, decision in ours) / len(messages.in_scope)


def _notes(inside: Booleans, gain: float, rightly_alone: float, rightly: float) -> tuple[str, ...]:
    if not inside.any():
        return (NOTHING.format(gain=max(gain, 0.0), worth=WORTH) if gain < WORTH else UNCHANGED,)
    if rightly >= rightly_alone:
        return ()
    worse = (
        f"confirmation is not expected to help: {rightly:.1%} of in-scope messages are answered rightly with this "
        f"cross-encoder, and {rightly_alone:.1%} without it, at the same target precision"
    )
    return (worse,)
