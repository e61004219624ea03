"""How well messages and their candidates are read: what training is judged by."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export.groups import Group

# Of a logit beside the bi-encoder's score, whose scale is some hundredths.
WEIGHTS = (0.0, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1)


@dataclass(frozen=True)
class Figures:
    """How left-out groups fared.

    Attributes:
        loss: mean, in nats.
        accuracy: share of answerable messages whose highest logit is the right candidate's; 0 where there are none.
        bi_encoder: the same by the bi-encoder's score.
        beside: the same by both, weighed as is best for these groups.
        auroc: of the highest logit, telling answerable messages from others; None where there is one kind only.
        bi_encoder_auroc: the same of the highest score.
    """

    loss: float
    accuracy: float
    bi_encoder: float
    beside: float
    auroc: float | None
    bi_encoder_auroc: float | None

    def __str__(self) -> str:
        """One line."""
        apart = "" if self.auroc is None else f", AUROC {self.auroc:.4f} ({self.bi_encoder_auroc:.4f})"
        return (
            f"loss {self.loss:.4f}, accuracy {self.accuracy:.4f}, beside the bi-encoder {self.beside:.4f} "
            f"(alone {self.bi_encoder:.4f}){apart}"
        )


@dataclass(frozen=True)
class Trained:
    """Figures of the left-out groups by name, before training and of the best state after it."""

    before: dict[str, Figures]
    after: dict[str, Figures]

    @property
    def is_better(self) -> bool:
        """Whether it was worth it: less loss, and beside the bi-encoder no less accuracy."""
        beside_before, beside = (
            statistics.mean(one.beside for one in figures.values()) for figures in (self.before, self.after)
        )
        return mean_loss(self.after) < mean_loss(self.before) and beside >= beside_before


def mean_loss(figures: Mapping[str, Figures]) -> float:
    """The mean of all losses, which weigh alike; at least one."""
    return statistics.mean(one.loss for one in figures.values())


def measure(groups: Sequence[Group], logits: Sequence[npt.NDArray[np.float32]]) -> Figures:
    """The figures of some groups.

    Args:
        groups: at least one.
        logits: for each group (candidates,) finite.
    """
    from sklearn.metrics import roc_auc_score

    losses = []
    for group, row in zip(groups, logits, strict=True):
        table = np.concatenate([[0.0], row.astype(np.float64)])
        losses.append(float(np.logaddexp.reduce(table) - table[0 if group.right is None else 1 + group.right]))
    scores = [np.array([candidate.score for candidate in group.candidates]) for group in groups]
    kinds = [group.right is not None for group in groups]
    answerable = np.flatnonzero(kinds).tolist()

    def accuracy(weight: float, score: float) -> float:
        hits = [int(np.argmax(weight * logits[i] + score * scores[i])) == groups[i].right for i in answerable]
        return statistics.mean(hits) if hits else 0.0

    auroc = bi_encoder_auroc = None
    if 0 < len(answerable) < len(groups):
        auroc = float(roc_auc_score(kinds, [row.max() for row in logits]))
        bi_encoder_auroc = float(roc_auc_score(kinds, [row.max() for row in scores]))
    return Figures(
        loss=statistics.mean(losses),
        accuracy=accuracy(1.0, 0.0),
        bi_encoder=accuracy(0.0, 1.0),
        beside=max(accuracy(weight, 1.0) for weight in WEIGHTS),
        auroc=auroc,
        bi_encoder_auroc=bi_encoder_auroc,
    )
