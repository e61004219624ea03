"""What tests train: a tiny model, and a task that it learns in seconds.

The candidate that speaks of a refund is right, whatever was asked.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertForSequenceClassification

from export.groups import Candidate, Group
from export.source import find_source
from export.training.draw import Chances
from export.training.train import Recipe, Trainer
from tests.export.models import make_model

_WORDS = ("order", "shop", "card", "money", "account", "phone", "hours", "parcel", "invoice", "router", "label", "gift")
RECIPE = Recipe(epochs=4, groups=12, rate=3e-3, rank=8, layers=2, pair_tokens=32, chances=Chances(noise=0.1))


def toy_groups(count: int, seed: int) -> list[Group]:
    """Messages with three candidates each; a third of them has no right one."""
    chance = np.random.default_rng(seed)

    def words() -> str:
        return " ".join(chance.choice(_WORDS, 2, replace=False))

    groups = []
    for number in range(count):
        right = int(chance.integers(3)) if number % 3 else None
        questions = ["refund refund" if place == right else words() for place in range(3)]
        candidates = (Candidate(text, "", words(), 0.5 - i / 1000) for i, text in enumerate(questions))
        groups.append(Group(words(), tuple(candidates), right))
    return groups


def trainer_of(model: Path, folder: Path, recipe: Recipe = RECIPE) -> Trainer:
    """A trainer of a local model."""
    return Trainer(find_source(str(model)), recipe, folder)


def make_even(folder: Path, logit: float = 0.0) -> Path:
    """Save a small cross-encoder that has learnt nothing yet: it gives every pair the same logit."""
    make_model(folder, labels=1)
    model: Any = BertForSequenceClassification.from_pretrained(str(folder))
    torch.nn.init.zeros_(model.classifier.weight)
    torch.nn.init.constant_(model.classifier.bias, logit)
    model.save_pretrained(folder)
    return folder
