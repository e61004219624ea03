"""The confidence map and the thresholds, from nothing but the FAQ and the shipped out-of-scope messages.

Three kinds of message are scored as if visitors had typed them:

- *in scope*: a phrasing, with itself (and what contains it) taken out of the index. The top entry is right or wrong.
- *near* out of scope: the same phrasing with its whole entry taken out. Whatever comes out on top is wrong.
- *far* out of scope: the shipped messages. Whatever comes out on top is wrong.

A logistic regression on score and margin, weighted to the expected share of out-of-scope messages (half near, half
far), gives confidence (Platt 1999, "Probabilistic outputs for support vector machines", with two features). The
thresholds are then read off the same samples: the lowest confidence above which the target precision holds, and the
lowest at which an isotonic fit says that the right entry is more likely than not among the options that "did you mean"
would offer.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export.errors import FaqwireError
from intents.candidates import Candidate, centroids_of, nearest_of_each, rank, unit
from intents.decide import Confidence, Policy, offerable
from intents.index import Calibration
from intents.items import Item
from intents.search import SCAN_CELLS, Floats, Positions

MAX_PER_ENTRY = 20
MAX_IN_SCOPE = 4000
MIN_IN_SCOPE = 30
LIKELY = 0.5  # right is more likely than wrong
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)
SEED = 20261123

Doubles = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Samples:
    """Scored messages, as columns.

    Attributes:
        score, margin: the top candidate's.
        option_score, option_margin: those of the first candidate that could be offered as "did you mean"; -1 where none
            could.
        right: whether the top entry is right.
        among: whether the right entry is among those that would be offered.
        in_scope: whether the message has a right entry at all.
        weight: of each sample; they sum to 1.
    """

    score: Doubles
    margin: Doubles
    option_score: Doubles
    option_margin: Doubles
    right: Booleans
    among: Booleans
    in_scope: Booleans
    weight: Doubles


@dataclass(frozen=True)
class Heldout:
    """Phrasings as messages: what each retrieves when it is not in the index itself.

    Attributes:
        retriever: retrieves from the items.
        in_scope: without the phrasing, and what contains it.
        near: the same phrasings without their whole entries; empty where there is only one entry.
        expected: (n,) the right entry of each.
        notes: what was assumed because the FAQ could not tell.
    """

    retriever: "_Retriever"
    in_scope: list["_Retrieved"]
    near: list["_Retrieved"]
    expected: Positions
    notes: tuple[str, ...]


def require_scikit_learn() -> None:
    """Find out before the work, and not after it, that calibration cannot run.

    Raises:
        FaqwireError: scikit-learn is not installed.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise FaqwireError("building an index needs scikit-learn; install `faqwire[build]`")


def hold_out(vectors: Floats, owners: Positions, items: Sequence[Item], *, neighbours: int) -> Heldout:
    """Hold phrasings out, one at a time.

    Args:
        vectors: (items, dimension) float32, unit length.
        owners: (items,) the entry of every item.
        items: what the vectors are of.
        neighbours: how many items a search retrieves.
    """
    retriever = _Retriever(vectors, owners, neighbours)
    notes = []
    chosen = _phrasings(owners, items)
    lonely = len(chosen) < MIN_IN_SCOPE
    if lonely:
        chosen = np.array([i for i, item in enumerate(items) if item.role == "phrasing"], dtype=np.int64)
        notes.append(
            f"fewer than {MIN_IN_SCOPE} phrasings can be held out, which is too few to calibrate on: questions were "
            "compared with their own answers as well, which makes visitors look easier to understand than they are; "
            "add phrasings"
        )
    several = owners.min() != owners.max()
    if not several:
        notes.append("there is only one entry: near out-of-scope messages could not be simulated")
    in_scope, near = [], []
    for position, message, scores in zip(chosen, vectors[chosen], retriever.scan(vectors[chosen]), strict=True):
        own = np.flatnonzero(owners == owners[position])
        # A question also stands in its answer's item, which goes with it.
        answers = [i for i in own if items[int(i)].role == "answer"] if position == own[0] and not lonely else []
        in_scope.append(retriever.retrieve(message, scores, np.array([position, *answers]), own))
        if several:
            near.append(retriever.retrieve(message, scores, own, own))
    return Heldout(retriever, in_scope, near, owners[chosen], tuple(notes))


def choose_weight(held_out: Heldout) -> float:
    """The centroid's weight with which most held-out phrasings find their entry; the smallest of equals."""

    def hits(weight: float) -> int:
        ranked = [r.ranked(weight) for r in held_out.in_scope]
        return sum(bool(c) and c[0].entry == expected for c, expected in zip(ranked, held_out.expected, strict=True))

    return max(WEIGHTS, key=lambda weight: (hits(weight), -weight))


def calibrate(
    held_out: Heldout,
    out_of_scope: Floats,
    weight: float,
    *,
    target_precision: float,
    out_of_scope_share: float,
    smalltalk: frozenset[int] = frozenset(),
) -> tuple[Policy, Calibration]:
    """Compute how an index decides.

    Args:
        held_out: the FAQ's phrasings as messages.
        out_of_scope: (n, dimension) vectors of messages that no FAQ answers.
        weight: of an entry's centroid.
        target_precision: of answered messages, at the expected share.
        out_of_scope_share: expected share of messages that the FAQ does not answer.
        smalltalk: entries that are answered, and never offered.
    """
    notes = list(held_out.notes)
    in_scope = [
        _scored(r.ranked(weight), int(e), smalltalk) for r, e in zip(held_out.in_scope, held_out.expected, strict=True)
    ]
    near = [_scored(r.ranked(weight), None, smalltalk) for r in held_out.near]
    far = [_scored(r.ranked(weight), None, smalltalk) for r in held_out.retriever.unknown(out_of_scope)]
    # A bank's FAQ does answer some of what is out of scope for a shop: such messages would teach it to be silent.
    limit = float(np.median([s.score for s in in_scope]))
    kept = [s for s in far if s.score < limit]
    samples = _weighted(in_scope, near, kept, out_of_scope_share)
    confidence = _fit(samples)
    values = _confidences(confidence, samples.score, samples.margin)
    options = np.minimum(values, _confidences(confidence, samples.option_score, samples.option_margin))
    answer_at = _answer_at(values, samples, target_precision)
    if not np.any(values >= answer_at):
        notes.append(f"a precision of {target_precision:.2f} was not reached: only exact phrasings are answered")
    clarify_at = _clarify_at(options, samples, answer_at)
    policy = Policy(confidence=confidence, answer_at=answer_at, clarify_at=clarify_at)
    answered, offered = values >= answer_at, (options >= clarify_at) & (values < answer_at)
    ours = samples.in_scope
    calibration = Calibration(
        target_precision=target_precision,
        out_of_scope_share=out_of_scope_share,
        in_scope=len(in_scope),
        near=len(near),
        far=len(kept),
        set_aside=len(far) - len(kept),
        precision=_share(samples.right, answered, samples.weight) if answered.any() else None,
        answered=_share(answered, ours, samples.weight),
        clarified=_share(offered, ours, samples.weight),
        refused=_share(~answered & ~offered, ~ours, samples.weight),
        calibration_error=calibration_error(values, samples.right, samples.weight),
        notes=tuple(notes),
    )
    return policy, calibration


def calibration_error(confidence: Doubles, right: Booleans, weight: Doubles, bins: int = 15) -> float:
    """Mean distance between confidence and the share that is right, over bins of equal mass (Guo et al. 2017).

    Args:
        confidence: (n,) probabilities.
        right: (n,) whether each was right.
        weight: (n,) of each; they need not sum to 1.
        bins: how many.
    """
    order = np.argsort(confidence, kind="stable")
    mass = np.cumsum(weight[order]) / weight.sum()
    number = np.minimum((mass * bins - 1e-9).astype(int), bins - 1)
    error = 0.0
    for one in range(bins):
        members = order[number == one]
        if len(members):
            error += abs(float(np.sum(weight[members] * (confidence[members] - right[members]))))
    return error / float(weight.sum())


@dataclass(frozen=True)
class _Scored:
    score: float
    margin: float
    option_score: float
    option_margin: float
    right: bool
    among: bool


def _scored(ranked: Sequence[Candidate], expected: int | None, smalltalk: frozenset[int]) -> _Scored:
    if not ranked:
        return _Scored(0.0, 0.0, -1.0, -1.0, right=False, among=False)
    options = offerable(ranked, smalltalk.__contains__)
    first = (options[0].score, options[0].margin) if options else (-1.0, -1.0)
    among = expected in [c.entry for c in options]
    return _Scored(ranked[0].score, ranked[0].margin, *first, right=ranked[0].entry == expected, among=among)


@dataclass(frozen=True)
class _Retrieved:
    """What one message retrieves, before its two similarities are joined."""

    entries: Positions
    nearest: Floats
    centroid: Floats
    last: float

    def ranked(self, weight: float) -> list[Candidate]:
        return rank(self.entries, self.nearest, self.centroid, weight, self.last)


class _Retriever:
    """Retrieves by an exact scan, with some of the items taken out."""

    def __init__(self, vectors: Floats, owners: Positions, neighbours: int) -> None:
        self._vectors, self._owners, self._neighbours = vectors, owners, neighbours
        self._centroids = centroids_of(vectors, owners, int(owners.max()) + 1)

    def scan(self, messages: Floats) -> Iterator[Floats]:
        """Similarities of every item to each message, in blocks that fit into memory."""
        block = max(1, SCAN_CELLS // len(self._vectors))
        for start in range(0, len(messages), block):
            yield from messages[start : start + block] @ self._vectors.T

    def unknown(self, messages: Floats) -> Iterator[_Retrieved]:
        """What messages retrieve that have no right entry."""
        nothing = np.array([], dtype=np.int64)
        for message, scores in zip(messages, self.scan(messages), strict=True):
            yield self.retrieve(message, scores, nothing, nothing)

    def retrieve(self, message: Floats, scores: Floats, hidden: Positions, siblings: Positions) -> _Retrieved:
        """What a message retrieves while some items of one entry are hidden.

        Args:
            message: (dimension,) its vector.
            scores: (items,) similarities.
            hidden: items that count as absent.
            siblings: all items of the entry that the hidden ones belong to.
        """
        scores = scores.copy()
        scores[hidden] = -np.inf
        count = min(self._neighbours, len(scores) - len(hidden))
        found = np.argpartition(-scores, count - 1)[:count] if count else hidden[:0]
        found = found[np.argsort(-scores[found], kind="stable")]
        entries, nearest = nearest_of_each(self._owners[found], scores[found])
        centroids = self._centroids[entries] @ message
        rest = np.setdiff1d(siblings, hidden)
        if len(rest):
            own = unit(self._vectors[rest].sum(axis=0, dtype=np.float64)[None])[0]
            centroids = np.where(entries == self._owners[rest[0]], own @ message, centroids)
        return _Retrieved(entries, nearest, centroids, float(scores[found[-1]]) if count else 0.0)


def _phrasings(owners: Positions, items: Sequence[Item]) -> Positions:
    """A seeded sample of the phrasings whose entries have another one."""
    chooser = np.random.default_rng(SEED)
    asked = np.flatnonzero([item.role == "phrasing" for item in items])
    starts = np.flatnonzero(np.diff(owners[asked])) + 1  # items stand entry by entry
    groups = [own for own in np.split(asked, starts) if len(own) > 1]
    chosen = [chooser.permutation(own)[:MAX_PER_ENTRY] for own in groups]
    flat = np.concatenate(chosen) if chosen else np.array([], dtype=np.int64)
    return np.sort(chooser.permutation(flat)[:MAX_IN_SCOPE])


def _weighted(in_scope: list[_Scored], near: list[_Scored], far: list[_Scored], share: float) -> Samples:
    groups = [g for g in (near, far) if g]
    weights = [np.full(len(in_scope), (1 - share) / len(in_scope))]
    weights += [np.full(len(g), share / len(groups) / len(g)) for g in groups]
    flat = [*in_scope, *near, *far]
    weight = np.concatenate(weights)
    return Samples(
        score=np.array([s.score for s in flat]),
        margin=np.array([s.margin for s in flat]),
        option_score=np.array([s.option_score for s in flat]),
        option_margin=np.array([s.option_margin for s in flat]),
        right=np.array([s.right for s in flat]),
        among=np.array([s.among for s in flat]),
        in_scope=np.arange(len(flat)) < len(in_scope),
        weight=weight / weight.sum(),
    )


def _fit(samples: Samples) -> Confidence:
    from sklearn.linear_model import LogisticRegression

    columns = {"score": samples.score, "margin": samples.margin}
    if samples.right.all() or not samples.right.any():
        # Nothing to separate: whatever the scores, the answer to "is it right" is the same.
        return Confidence(bias=20.0 if samples.right.all() else -20.0, score=0.0, margin=0.0)
    while columns:
        features = np.column_stack(list(columns.values()))
        model = LogisticRegression(C=1e4, max_iter=1000)
        model.fit(features, samples.right, sample_weight=samples.weight * len(samples.weight))
        weights = dict(zip(columns, map(float, model.coef_[0]), strict=True))
        # A negative weight would let confidence fall when a score rises; without that feature it is fitted again.
        worst = min(weights, key=lambda name: weights[name])
        if weights[worst] >= 0:
            bias = float(model.intercept_[0])
            return Confidence(bias=bias, score=weights.get("score", 0.0), margin=weights.get("margin", 0.0))
        del columns[worst]
    # Neither tells right from wrong: every message is as likely to be right as any other.
    share = float(np.clip(np.average(samples.right, weights=samples.weight), 1e-9, 1 - 1e-9))
    return Confidence(bias=float(np.log(share / (1 - share))), score=0.0, margin=0.0)


def _confidences(confidence: Confidence, score: Doubles, margin: Doubles) -> Doubles:
    logits = confidence.bias + confidence.score * score + confidence.margin * margin
    values: Doubles = 1.0 / (1.0 + np.exp(-logits))
    return values


def _answer_at(values: Doubles, samples: Samples, target: float) -> float:
    """The lowest confidence at and above which precision is at least the target; above 1 if there is none.

    Never where the answer is more likely wrong than right: in a FAQ of a few entries the easy messages would pay for
    it, and precision would still hold.
    """
    order = np.argsort(-values, kind="stable")
    weight = samples.weight[order]
    precision = np.cumsum(weight * samples.right[order]) / np.cumsum(weight)
    last_of_equals = np.append(np.diff(values[order]) != 0, True)  # a threshold takes all of equal confidence, or none
    enough = np.flatnonzero((precision >= target) & last_of_equals & (values[order] >= LIKELY))
    return float(values[order][enough[-1]]) if len(enough) else 1.01


def _clarify_at(values: Doubles, samples: Samples, answer_at: float) -> float:
    """The lowest confidence at which the right entry is more likely than not among the options."""
    from sklearn.isotonic import IsotonicRegression

    chance = IsotonicRegression(y_min=0, y_max=1, increasing=True)
    likely = chance.fit_transform(values, samples.among, sample_weight=samples.weight) >= LIKELY
    return min(float(values[likely].min()), answer_at) if likely.any() else answer_at


def _share(part: Booleans, whole: Booleans, weight: Doubles) -> float:
    total = float(weight[whole].sum())
    return float(weight[whole & part].sum()) / total if total else 0.0
