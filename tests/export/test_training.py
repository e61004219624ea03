"""Training: a tiny model learns, goes on where it stopped, and keeps its best state."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from export.adapter import open_adapter
from export.errors import ExportError, TrainingError
from export.groups import Group
from export.source import find_source
from export.training.checkpoint import NAME
from tests.export.models import make_model
from tests.export.toys import RECIPE, make_even, toy_groups, trainer_of

SHORT = replace(RECIPE, epochs=2, checks=4)
LESSON, JUDGED = toy_groups(48, 1), {"toy": toy_groups(12, 2)}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder without a head."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def cross(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small cross-encoder that has learnt nothing yet: every logit is 0."""
    return make_even(tmp_path_factory.mktemp("models") / "cross")


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    """What is trained."""
    return {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}


def stop_after(last: int) -> Callable[[int, int, float], None]:
    """Ctrl-C once this step is done."""

    def progress(step: int, _steps: int, _loss: float) -> None:
        if step == last:
            raise KeyboardInterrupt

    return progress


def interrupted(model: Path, folder: Path, last: int) -> None:
    """Begin the short training and stop it after a step."""
    with pytest.raises(KeyboardInterrupt):
        trainer_of(model, folder, SHORT).train(LESSON, JUDGED, progress=stop_after(last))


def refusal(model: Path, folder: Path, **changes: Any) -> str:
    """The sentence with which the short training is refused when something of it is another."""
    recipe = replace(SHORT, **{name: changes.pop(name) for name in list(changes) if name in SHORT.__dict__})
    with pytest.raises((TrainingError, ExportError)) as caught:
        trainer_of(model, folder, recipe).train(changes.get("groups_", LESSON), changes.get("left_out", JUDGED))
    return str(caught.value)


def test_it_learns(tiny: Path, tmp_path: Path) -> None:
    """Messages that were never read are told right from wrong, and those that nothing answers from the others."""
    lines: list[str] = []
    steps: list[tuple[int, int]] = []
    trainer = trainer_of(tiny, tmp_path / "scratch")
    trained = trainer.train(
        toy_groups(120, 1), {"toy": toy_groups(40, 2)}, lines.append, lambda step, of, _: steps.append((step, of))
    )
    before, after = trained.before["toy"], trained.after["toy"]
    assert after.loss < 0.5 * before.loss
    assert after.accuracy > 0.9 > before.accuracy
    assert after.auroc is not None
    assert after.auroc > 0.9
    assert trained.is_better
    assert steps == [(step, 40) for step in range(1, 41)]
    assert [line.partition(":")[0] for line in lines] == [f"step {step} of 40" for step in range(0, 41, 4)]


def test_what_is_saved_is_what_was_judged(tiny: Path, tmp_path: Path) -> None:
    """The saved adapter, opened again and trained further, begins with the figures of the best state."""
    first = trainer_of(tiny, tmp_path / "scratch", SHORT)
    learnt = first.train(LESSON, JUDGED)
    first.save(tmp_path / "adapter")
    second = trainer_of(tmp_path / "adapter", tmp_path / "scratch2", SHORT)
    assert second.judge(JUDGED)["toy"].loss == pytest.approx(learnt.after["toy"].loss, abs=1e-6)
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert second.train(LESSON, JUDGED).after["toy"].loss < learnt.after["toy"].loss


def test_an_adapter_finds_its_model_from_anywhere(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that was named by a relative path is found from another working directory."""
    monkeypatch.chdir(tiny.parent)
    trainer_of(Path("tiny"), tmp_path / "scratch", SHORT).save(tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    found = find_source(str(tmp_path / "adapter"))
    assert found.base is not None
    assert found.base.folder.samefile(tiny)


@pytest.mark.parametrize(
    ("last", "begins"), [(1, "step 0 of 8:"), (5, "going on after step 4 of 8"), (8, "going on after step 6 of 8")]
)
def test_it_goes_on_as_if_it_had_not_been_interrupted(tiny: Path, tmp_path: Path, last: int, begins: str) -> None:
    """Stopped before the first check, between two, or before the last, it ends with the same weights and figures."""
    whole = trainer_of(tiny, tmp_path / "whole", SHORT)
    expected = whole.train(LESSON, JUDGED)
    interrupted(tiny, tmp_path / "scratch", last)
    lines: list[str] = []
    again = trainer_of(tiny, tmp_path / "scratch", SHORT)
    assert again.train(LESSON, JUDGED, lines.append) == expected
    assert lines[0].startswith(begins)
    for name, weight in weights_of(whole.model).items():
        assert torch.equal(weights_of(again.model)[name], weight), name


def test_a_checkpoint_stays_until_it_is_forgotten(tiny: Path, tmp_path: Path) -> None:
    """What was learnt is not lost before it is saved: trained again, it is there at once; forgotten, nothing is."""
    trainer_of(tiny, tmp_path / "scratch", SHORT).train(LESSON, JUDGED)
    steps: list[int] = []
    trainer = trainer_of(tiny, tmp_path / "scratch", SHORT)
    trainer.train(LESSON, JUDGED, progress=lambda step, *_: steps.append(step))
    assert steps == []
    trainer.forget()
    assert list(tmp_path.iterdir()) == []


def test_it_keeps_the_best_state(cross: Path, tmp_path: Path) -> None:
    """Where learning does harm it is the least harmful check that is kept, and it is not called better."""
    wrong = [replace(group, right=None) for group in LESSON]
    judged = {"toy": [group for group in JUDGED["toy"] if group.right is not None]}
    lines: list[str] = []
    trainer = trainer_of(cross, tmp_path / "scratch", SHORT)
    trained = trainer.train(wrong, judged, lines.append)
    losses = [float(line.rpartition("toy: loss ")[2].partition(",")[0]) for line in lines]
    assert losses[0] == pytest.approx(math.log(4), abs=1e-4)
    assert losses[1] == min(losses[1:]) < losses[-1]
    assert trained.after["toy"].loss == pytest.approx(losses[1], abs=1e-4)
    assert trainer.judge(judged) == trained.after
    assert not trained.is_better


@pytest.mark.parametrize(
    "changes",
    [
        {"groups_": toy_groups(48, 3)},
        {"left_out": {"toy": toy_groups(12, 4)}},
        {"left_out": {"another": JUDGED["toy"]}},
        {"rate": 1e-3},
        {"seed": 2},
    ],
)
def test_another_trainings_checkpoint_is_refused(tiny: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    """What began with other messages or another recipe is not gone on with, and stays as it is."""
    interrupted(tiny, tmp_path, 5)
    before = (tmp_path / NAME).read_bytes()
    sentence = refusal(tiny, tmp_path, **changes)
    assert f"{tmp_path / NAME} is of other messages, another model or another recipe" in sentence
    assert (tmp_path / NAME).read_bytes() == before


def test_another_models_checkpoint_is_refused(tiny: Path, cross: Path, tmp_path: Path) -> None:
    """Weights of one model's training are not mixed into another's."""
    interrupted(tiny, tmp_path, 5)
    assert "another model" in refusal(cross, tmp_path)


def test_scores_do_not_make_another_training(tiny: Path, tmp_path: Path) -> None:
    """The last digits of the bi-encoder's scores depend on the number of threads, and are not learnt from."""
    interrupted(tiny, tmp_path, 5)
    groups = [Group(g.message, tuple(replace(c, score=c.score + 1e-6) for c in g.candidates), g.right) for g in LESSON]
    lines: list[str] = []
    trainer_of(tiny, tmp_path, SHORT).train(groups, JUDGED, lines.append)
    assert lines[0] == "going on after step 4 of 8"


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "other"])
def test_a_damaged_checkpoint_is_named(tiny: Path, tmp_path: Path, damage: str) -> None:
    """A checkpoint that is not whole, or is something else, is refused with what to do."""
    interrupted(tiny, tmp_path, 5)
    path = tmp_path / NAME
    data = bytearray(path.read_bytes())
    flipped = bytes([*data[: len(data) // 2], data[len(data) // 2] ^ 1, *data[len(data) // 2 + 1 :]])
    if damage == "other":
        torch.save({"step": 1}, path)
    else:
        path.write_bytes({"empty": b"", "truncated": bytes(data[: len(data) // 2]), "flipped": flipped}[damage])
    assert refusal(tiny, tmp_path) == f"{path} is damaged; remove its folder to begin anew"


@pytest.mark.parametrize("changes", [{"groups_": []}, {"left_out": {}}, {"left_out": {"toy": []}}])
def test_nothing_to_learn_is_refused(tiny: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Without messages to learn from, or to judge by, there is a sentence and no checkpoint."""
    assert "no messages to learn from, or none to judge by" in refusal(tiny, tmp_path / "scratch", **changes)
    assert list(tmp_path.iterdir()) == []


def test_pairs_longer_than_the_model_reads_are_refused(tiny: Path, tmp_path: Path) -> None:
    """The limit is the model's."""
    assert refusal(tiny, tmp_path, pair_tokens=65) == "--pair-tokens 65 is more than tiny can read (64)"


def test_a_model_that_gives_no_numbers_is_refused(tmp_path: Path) -> None:
    """Logits beyond all bounds end training in a sentence."""
    broken = make_even(tmp_path / "broken", math.inf)
    assert "train with a lower --rate" in refusal(broken, tmp_path / "scratch")


def test_a_model_of_another_kind_is_refused(tiny: Path, tmp_path: Path) -> None:
    """A model without BERT's blocks is named."""
    config = DistilBertConfig(vocab_size=400, dim=32, n_layers=1, n_heads=2, hidden_dim=32, num_labels=1)
    model: Any = DistilBertForSequenceClassification(config)
    model.save_pretrained(tmp_path / "distil")
    (tmp_path / "distil" / "tokenizer.json").write_bytes((tiny / "tokenizer.json").read_bytes())
    assert refusal(tmp_path / "distil", tmp_path / "scratch") == (
        "distil is a DistilBertForSequenceClassification, which cannot be trained; take one of BERT's kind"
    )


@pytest.mark.parametrize("file", ["tokenizer.json", "model.safetensors"])
def test_a_model_that_cannot_be_read_is_named(tiny: Path, tmp_path: Path, file: str) -> None:
    """A file of the model that is not whole is one sentence."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in tiny.iterdir():
        data = path.read_bytes()
        (broken / path.name).write_bytes(data[: len(data) // 2] if path.name == file else data)
    assert str(broken) in refusal(broken, tmp_path / "scratch")


def test_only_the_upper_layers_and_the_head_are_trained(tiny: Path, tmp_path: Path) -> None:
    """The lower layers and the embeddings stay as they are; so the adapter is small."""
    trainer = trainer_of(tiny, tmp_path / "scratch", replace(SHORT, layers=1))
    names = weights_of(trainer.model)
    assert any("layer.1." in name for name in names)
    assert any("classifier" in name for name in names)
    assert any("pooler" in name for name in names)
    assert not any("layer.0." in name or "embeddings" in name for name in names)
    trainer.save(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["layers_to_transform"]) == (8, [1])
    source = find_source(str(tmp_path / "adapter"))
    assert source.base is not None
    assert weights_of(open_adapter(source, source.base, trainable=True)).keys() == names.keys()
