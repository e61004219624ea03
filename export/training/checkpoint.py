"""Where training goes on from when it was interrupted: all that it depends on, in one file."""

import math
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from export.errors import TrainingError
from export.training.figures import Figures, Trained, mean_loss

NAME = "checkpoint.pt"


@dataclass
class State:
    """How far training has come.

    Attributes:
        step: how many are done.
        kept: the weights that had the least mean loss on left-out groups, by name.
        trained: the figures, of the start and of these weights.
        best: that loss; infinite before the first check.
    """

    step: int
    kept: dict[str, Any]
    trained: Trained
    best: float = math.inf

    def keep(self, weights: dict[str, Any], figures: dict[str, Figures]) -> None:
        """Take these weights for the best so far; their figures come with them."""
        self.kept, self.best = weights, mean_loss(figures)
        self.trained = replace(self.trained, after=figures)


@dataclass(frozen=True)
class Checkpoint:
    """A state with the weights and the optimizer that it had.

    Attributes:
        state: how far training had come.
        weights: of that step, by name.
        optimizer: torch's state of it.
    """

    state: State
    weights: dict[str, Any]
    optimizer: dict[str, Any]

    def write(self, folder: Path, identity: str) -> None:
        """Write it into a folder, made if need be, in place of the one before.

        Args:
            folder: of this training alone.
            identity: of everything that training began with.
        """
        import torch

        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{NAME}"
        known = {
            "identity": identity,
            "step": self.state.step,
            "best": self.state.best,
            "kept": self.state.kept,
            "before": _plain(self.state.trained.before),
            "after": _plain(self.state.trained.after),
            "weights": self.weights,
            "optimizer": self.optimizer,
        }
        torch.save(known, draft)
        draft.replace(folder / NAME)


def read(folder: Path, identity: str, device: str) -> Checkpoint | None:
    """Read the folder's checkpoint; None where there is none.

    Args:
        folder: of this training alone.
        identity: what it has to be of.
        device: where its weights go.

    Raises:
        TrainingError: it is damaged, or of something else.
    """
    import torch

    path = folder / NAME
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch itself does not look at the checksums
        known = torch.load(path, map_location=device, weights_only=True)
        found = known["identity"]
        before, after = ({name: Figures(**one) for name, one in known[when].items()} for when in ("before", "after"))
        state = State(known["step"], known["kept"], Trained(before, after), known["best"])
        checkpoint = Checkpoint(state, known["weights"], known["optimizer"])
    except Exception as exc:  # torch raises anything on a damaged file
        raise TrainingError(f"{path} is damaged; remove its folder to begin anew") from exc
    if damaged is not None:
        raise TrainingError(f"{path} is damaged; remove its folder to begin anew")
    if found != identity:
        raise TrainingError(
            f"{path} is of other messages, another model or another recipe: train again as it was begun, or remove its "
            "folder to begin anew"
        )
    return checkpoint


def _plain(figures: Mapping[str, Figures]) -> dict[str, dict[str, float | None]]:
    return {name: asdict(one) for name, one in figures.items()}
