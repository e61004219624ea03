"""Training: a low-rank adapter of a base model learns which of a message's candidates answers it, or that none does.

The loss is the cross-entropy of one choice among a message's candidates and "none", whose logit is 0: so a logit is the
log-odds of a candidate against none, ranks candidates, and means the same for every FAQ. Only low-rank updates of the
upper layers (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"), the pooler and the head are
trained; the lower layers and the word embeddings keep what they know of words that are not in the training data.

What is kept is the state that had the least loss on left-out groups. What a step does depends on the weights, the
optimizer, the seed and its number alone, so that training which goes on from a checkpoint ends as if it had not been
interrupted; it goes on only with what it began with.
"""

import hashlib
import json
import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from export.adapter import check_complete, open_adapter, open_classifier
from export.errors import TrainingError
from export.groups import Group
from export.source import Source
from export.training import checkpoint
from export.training.checkpoint import Checkpoint, State
from export.training.draw import Chances, Drawn, as_served, draw
from export.training.figures import Figures, Trained, mean_loss, measure
from export.training.reader import Reader

# Batches whose groups are sorted by length together: padding is work for nothing, and the order stays random enough.
POOL = 40

Report = Callable[[str], None]
Progress = Callable[[int, int, float], None]
"""Told the step, of how many, and the loss of the last ones."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: how often every group is drawn.
        groups: of a step.
        rate: the highest learning rate; it rises over the first twentieth of the steps, and falls to 0.
        rank: of the updates of a new adapter.
        layers: how many of the upper layers a new adapter trains.
        pair_tokens: most tokens of a pair.
        checks: how often the left-out groups are read, and a checkpoint is written.
        seed: of everything that is random; not negative.
        chances: what is drawn.
    """

    epochs: float = 2.0
    groups: int = 24
    rate: float = 5e-4
    rank: int = 16
    layers: int = 6
    pair_tokens: int = 64
    checks: int = 10
    seed: int = 1
    chances: Chances = field(default_factory=Chances)


class Trainer:
    """Trains one adapter.

    Args:
        source: what is trained: an adapter goes on learning, any other model gets a new one.
        recipe: how.
        folder: where the checkpoint lives, and nothing else; made when there is one.

    Raises:
        ExportError: the model cannot be loaded.
        TrainingError: it cannot be trained, or not so.
    """

    def __init__(self, source: Source, recipe: Recipe, folder: Path) -> None:
        import torch
        from transformers import logging

        logging.set_verbosity_error()  # that the head is not trained yet is no news here
        torch.manual_seed(recipe.seed)
        self._torch, self._recipe, self._folder, self._weights_of = torch, recipe, folder, source.weights
        base = source.base or source
        if source.base is None:
            self.model = _new_adapter(source, recipe)
        else:
            self.model = open_adapter(source, source.base, trainable=True)
        longest = self.model.config.max_position_embeddings
        if recipe.pair_tokens > longest:
            raise TrainingError(f"--pair-tokens {recipe.pair_tokens} is more than {base.name} can read ({longest})")
        config = self.model.peft_config["default"]
        config.base_model_name_or_path, config.revision = base.place, base.revision
        self._reader = Reader(self.model, base.folder / "tokenizer.json", recipe.pair_tokens)
        self._weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self._optimizer = torch.optim.AdamW(self._weights, lr=recipe.rate, weight_decay=0.01)

    def save(self, folder: Path) -> None:
        """Write the adapter in PEFT's format."""
        self.model.save_pretrained(folder, save_embedding_layers=False)  # else it looks for the base on the hub
        (folder / "README.md").unlink(missing_ok=True)  # an empty form

    def train(
        self,
        groups: Sequence[Group],
        left_out: Mapping[str, Sequence[Group]],
        report: Report = lambda _: None,
        progress: Progress = lambda *_: None,
    ) -> Trained:
        """Train, and keep the best state. The checkpoint stays until `forget`.

        Args:
            groups: to learn from.
            left_out: groups to choose the best state by, by name; they weigh alike.
            report: told every line of the log.
            progress: told every step.

        Returns:
            How the left-out groups fared before and after.

        Raises:
            TrainingError: there is nothing to learn from, the loss grows beyond all bounds, or the checkpoint belongs
                to something else.
        """
        recipe = self._recipe
        if not groups or not left_out or not all(left_out.values()):
            raise TrainingError("there are no messages to learn from, or none to judge by; train on a larger FAQ")
        steps = max(1, math.ceil(recipe.epochs * len(groups) / recipe.groups))
        identity = self._identity(groups, left_out)
        state = self._resume(identity)
        if state is None:
            before = self.judge(left_out)
            state = State(0, self._trained(), Trained(before, before))
            report(f"step 0 of {steps}: {_line(before)}")
        else:
            report(f"going on after step {state.step} of {steps}")
        losses: list[float] = []
        started, began = time.perf_counter(), state.step
        for step, batch in enumerate(self._batches(groups, state.step, steps), start=state.step + 1):
            losses.append(self._step(batch, step, steps))
            progress(step, steps, statistics.mean(losses[-50:]))
            if step % max(1, steps // recipe.checks) and step < steps:
                continue
            now, seconds = self.judge(left_out), (time.perf_counter() - started) / (step - began)
            state.step = step
            if mean_loss(now) < state.best:
                state.keep(self._trained(), now)
            Checkpoint(state, self._trained(), self._optimizer.state_dict()).write(self._folder, identity)
            report(f"step {step} of {steps}: {seconds:.2f} s each, loss {statistics.mean(losses):.4f}; {_line(now)}")
            losses.clear()
        self.model.load_state_dict(state.kept, strict=False)
        return state.trained

    def forget(self) -> None:
        """Remove the checkpoint with its folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def judge(self, left_out: Mapping[str, Sequence[Group]]) -> dict[str, Figures]:
        """How groups fare now, as a server shows them.

        Raises:
            TrainingError: a logit is no number.
        """
        logits = {name: self._reader.read(as_served(judged), self._recipe.groups) for name, judged in left_out.items()}
        if not all(np.isfinite(row).all() for rows in logits.values() for row in rows):
            self.forget()  # it would lead here again
            raise TrainingError("the model gives no numbers any more; train with a lower --rate")
        return {name: measure(judged, logits[name]) for name, judged in left_out.items()}

    def _step(self, batch: Sequence[Drawn], step: int, steps: int) -> float:
        """Learn from a batch, the `step`-th, and return its loss."""
        torch = self._torch
        torch.manual_seed(self._recipe.seed * 1_000_003 + step)  # of dropout
        self.model.train()
        self._optimizer.param_groups[0]["lr"] = self._recipe.rate * _schedule(step - 1, steps)
        loss = self._loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return float(loss.item())

    def _loss(self, batch: Sequence[Drawn]) -> Any:
        torch = self._torch
        logits = self._reader.logits(batch).float()
        widest = max(len(drawn.texts) for drawn in batch)
        table = torch.full((len(batch), widest + 1), -math.inf, device=logits.device)
        table[:, 0] = 0.0  # none of them
        rows = torch.tensor([row for row, drawn in enumerate(batch) for _ in drawn.texts], device=logits.device)
        columns = torch.tensor([1 + i for drawn in batch for i in range(len(drawn.texts))], device=logits.device)
        table = table.index_put((rows, columns), logits)
        right = [0 if drawn.right is None else 1 + drawn.right for drawn in batch]
        return torch.nn.functional.cross_entropy(table, torch.tensor(right, device=logits.device))

    def _batches(self, groups: Sequence[Group], done: int, steps: int) -> Iterator[list[Drawn]]:
        """The batches after those that are done; each of groups alike in length."""
        recipe, step = self._recipe, 0
        for epoch in range(math.ceil(recipe.epochs)):
            drawn = draw(groups, recipe.chances, seed=recipe.seed, epoch=epoch)
            chance = np.random.default_rng([recipe.seed, epoch, 1])
            for start in range(0, len(drawn), POOL * recipe.groups):
                pool = sorted(drawn[start : start + POOL * recipe.groups], key=Drawn.length)
                batches = [pool[i : i + recipe.groups] for i in range(0, len(pool), recipe.groups)]
                for place in chance.permutation(len(batches)):
                    if step == steps:
                        return
                    if step >= done:
                        yield batches[place]
                    step += 1

    def _trained(self) -> dict[str, Any]:
        weights = self.model.named_parameters()
        return {name: weight.detach().cpu().clone() for name, weight in weights if weight.requires_grad}

    def _resume(self, identity: str) -> State | None:
        found = checkpoint.read(self._folder, identity, self._reader.device)
        if found is None:
            return None
        self.model.load_state_dict(found.weights, strict=False)
        self._optimizer.load_state_dict(found.optimizer)
        return found.state

    def _identity(self, groups: Sequence[Group], left_out: Mapping[str, Sequence[Group]]) -> str:
        """A digest of everything that training begins with."""
        parts = [
            asdict(self._recipe),
            self._weights_of,
            _shown(groups),
            {name: _shown(judged) for name, judged in left_out.items()},
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _new_adapter(source: Source, recipe: Recipe) -> Any:
    """A PEFT model that changes the linear layers of a model's upper blocks, and all of its head.

    Raises:
        ExportError: the model cannot be loaded.
        TrainingError: it is not built of such blocks.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from peft.utils import get_peft_model_state_dict

    model, missing = open_classifier(source)
    blocks = getattr(getattr(model.base_model, "encoder", None), "layer", None)
    if blocks is None:
        raise TrainingError(
            f"{source.name} is a {type(model).__name__}, which cannot be trained; take one of BERT's kind"
        )
    linear = {name.rpartition(".")[2] for name, part in blocks.named_modules() if isinstance(part, torch.nn.Linear)}
    pooler = ["pooler"] if getattr(model.base_model, "pooler", None) is not None else []
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=recipe.rank,
        lora_alpha=2 * recipe.rank,
        target_modules=sorted(linear),
        exclude_modules=r".*(pooler|classifier).*",
        layers_to_transform=list(range(max(0, len(blocks) - recipe.layers), len(blocks))),
        modules_to_save=[*pooler, "classifier"],
    )
    adapted = get_peft_model(model, config)
    check_complete(source, missing, get_peft_model_state_dict(adapted, save_embedding_layers=False).keys())
    return adapted


def _shown(groups: Sequence[Group]) -> list[Any]:
    """Groups without scores, which differ in their last digits from one number of threads to another."""
    return [
        (group.message, [(one.question, one.phrasing, one.answer, one.ways) for one in group.candidates], group.right)
        for group in groups
    ]


def _schedule(done: int, steps: int) -> float:
    """The share of the highest learning rate after so many steps."""
    rising = max(1, steps // 20)
    return (done + 1) / rising if done < rising else (steps - done) / max(1, steps - rising)


def _line(figures: Mapping[str, Figures]) -> str:
    return "; ".join(f"{name}: {one}" for name, one in figures.items())
