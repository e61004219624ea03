"""Low-rank adapters in PEFT's format: merged into their model when they are exported, or refused."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertModel

from export import source
from export.adapter import open_adapter, whole
from export.convert import export_model
from export.errors import ExportError, SourceError
from export.golden import PAIRS
from export.runtime.cross_encoder import CrossEncoder
from export.runtime.session import CPU, Device
from export.sealed import sha256_of
from export.source import ADAPTER, ADAPTER_WEIGHTS, CONFIRMER, DEFAULT_MODEL, find_source
from tests.export.models import make_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small encoder `base`, and `adapter`, a random adapter that makes a cross-encoder of it."""
    folder = tmp_path_factory.mktemp("models")
    base = make_model(folder / "base")
    model: Any = AutoModelForSequenceClassification.from_pretrained(str(base), num_labels=1)
    adapted = get_peft_model(
        model,
        LoraConfig(
            task_type="SEQ_CLS",
            r=4,
            lora_alpha=8,
            target_modules=["query", "value"],
            modules_to_save=["pooler", "classifier"],
            init_lora_weights=False,  # random, as if they had learnt something
        ),
    )
    torch.nn.init.normal_(model.classifier.modules_to_save["default"].weight)
    adapted.save_pretrained(str(folder / "adapter"), save_embedding_layers=False)
    return folder


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    """A copy of the adapter, with its model beside it, to do with as a test likes."""
    shutil.copytree(models / "base", tmp_path / "base")
    shutil.copytree(models / "adapter", tmp_path / "adapter")
    configure(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "base"))
    return tmp_path / "adapter"


def configure(folder: Path, **changes: Any) -> None:
    """Change fields of the adapter's configuration."""
    path = folder / ADAPTER
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def lose(folder: Path, *ends: str) -> None:
    """Take those weights out of the adapter whose names end so."""
    weights = load_file(folder / ADAPTER_WEIGHTS)
    kept = {name: weight for name, weight in weights.items() if not name.endswith(ends)}
    assert len(kept) == len(weights) - len(ends)
    save_file(kept, folder / ADAPTER_WEIGHTS)


def refusal(folder: Path) -> str:
    """The sentence with which an adapter is refused before its weights are opened."""
    with pytest.raises(SourceError) as caught:
        find_source(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_exported_adapter_is_the_merged_model(models: Path, tmp_path: Path) -> None:
    """The bundle's logits are those of the torch model with its adapter, and far from those without."""
    bundle = export_model(str(models / "adapter"), tmp_path / "bundle", variants=()).bundle
    assert bundle.manifest.kind == "cross-encoder"
    model: Any = AutoModelForSequenceClassification.from_pretrained(str(models / "base"), num_labels=1)
    adapted: Any = PeftModel.from_pretrained(model, str(models / "adapter")).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(str(models / "base"))
    inputs = tokenizer(list(PAIRS), padding=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.inference_mode():
        expected = adapted(**inputs).logits[:, 0].numpy()
        for part in adapted.modules():
            if hasattr(part, "scaling"):
                part.scaling["default"] = 0.0
        without = adapted(**inputs).logits[:, 0].numpy()
    scores = CrossEncoder(bundle, "fp32", Device(CPU)).score(PAIRS)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert np.abs(without - expected).max() > 0.1, "the adapter changes something, so agreement means something"


def test_the_manifest_names_the_weights_of_both(models: Path, tmp_path: Path) -> None:
    """Adapter and base are told by the sha256 of their weights; another adapter has another fingerprint."""
    manifest = export_model(str(models / "adapter"), tmp_path / "bundle", variants=()).bundle.manifest
    assert manifest.source.model == "adapter"
    assert manifest.source.weights == {
        ADAPTER_WEIGHTS: sha256_of(models / "adapter" / ADAPTER_WEIGHTS),
        "base/model.safetensors": sha256_of(models / "base" / "model.safetensors"),
    }
    assert manifest.made_with.keys() >= {"peft", "torch"}


def test_an_export_is_up_to_date_until_adapter_or_model_change(folder: Path, tmp_path: Path) -> None:
    """What the bundle is made of includes the model's settings, which stand in another folder."""

    def export() -> bool:
        return export_model(str(folder), tmp_path / "bundle", variants=()).up_to_date

    assert not export()
    assert export()
    tokenizer = tmp_path / "base" / "tokenizer_config.json"
    tokenizer.write_text(
        json.dumps(json.loads(tokenizer.read_text(encoding="utf-8")) | {"model_max_length": 32}), encoding="utf-8"
    )
    assert not export()
    configure(folder, lora_alpha=4)
    assert not export()


def test_merging_leaves_nothing(folder: Path) -> None:
    """The merged copy is there as long as it is used, and neither adapter nor model change."""
    before = {path: sha256_of(path) for path in folder.parent.rglob("*") if path.is_file()}
    with whole(find_source(str(folder))) as merged:
        assert (merged.base, merged.kind, merged.name) == (None, "cross-encoder", "adapter")
        assert (merged.folder / "tokenizer.json").is_file()
        assert find_source(str(merged.folder)).kind == "cross-encoder"
    assert not merged.folder.exists()
    assert {path: sha256_of(path) for path in folder.parent.rglob("*") if path.is_file()} == before


def test_a_whole_model_is_taken_as_it_is(models: Path) -> None:
    """Only adapters are merged."""
    base = find_source(str(models / "base"))
    with whole(base) as same:
        assert same is base


def test_the_confirmer_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where faqwire comes without its own cross-encoder, the sentence says what to do instead."""
    monkeypatch.setattr(source, "CONFIRMER_FOLDER", tmp_path / "nowhere")
    with pytest.raises(SourceError, match="comes without faqwire/confirmer; name another cross-encoder, or train one"):
        find_source(CONFIRMER)


def test_the_confirmer_is_an_adapter_of_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes by its name, wherever faqwire is installed."""
    monkeypatch.setattr(source, "CONFIRMER_FOLDER", folder)
    found = find_source(CONFIRMER)
    assert (found.name, found.kind, found.folder) == (CONFIRMER, "cross-encoder", folder)
    with pytest.raises(SourceError, match="a local model has only what is in its folder"):
        find_source(CONFIRMER, "main")


def test_an_adapter_of_the_default_model_needs_no_folder(folder: Path) -> None:
    """The default model's name stands for its package, also where the adapter names a revision of the hub."""
    configure(folder, base_model_name_or_path=DEFAULT_MODEL, revision="main")
    found = find_source(str(folder))
    assert found.base == find_source(DEFAULT_MODEL)


def test_a_models_revision_is_the_adapters(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter of a hub model is merged into the revision that it was trained on."""
    asked = []

    def download(model: str, revision: str | None) -> tuple[Path, str]:
        asked.append((model, revision))
        return folder.parent / "base", "0123abc"

    monkeypatch.setattr(source, "_download", download)
    configure(folder, base_model_name_or_path="somebody/base", revision="v2")
    found = find_source(str(folder))
    assert asked == [("somebody/base", "v2")]
    assert found.base is not None
    assert (found.base.place, found.base.revision) == ("somebody/base", "0123abc")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"peft_type": "IA3"}, "is of a kind IA3, SEQ_CLS; faqwire merges LoRA adapters of cross-encoders"),
        ({"task_type": "FEATURE_EXTRACTION"}, "is of a kind LORA, FEATURE_EXTRACTION"),
        ({"task_type": None}, "is of a kind LORA, None"),
        ({"base_model_name_or_path": None}, "does not say what it adapts"),
        ({"base_model_name_or_path": ""}, "does not say what it adapts"),
        ({"base_model_name_or_path": "./nowhere"}, "adapts ./nowhere, which cannot be had: there is no folder"),
        ({"megatron_config": {"a": 1}, "megatron_core": "antigravity"}, "names code to import .* never run"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(folder: Path, changes: dict[str, Any], says: str) -> None:
    """What is no low-rank adapter of a cross-encoder, or has no model, is named."""
    configure(folder, **changes)
    sentence = refusal(folder)
    assert str(folder / ADAPTER) in sentence
    assert re.search(says, sentence), sentence


def test_an_adapter_of_an_adapter_is_refused(folder: Path, tmp_path: Path) -> None:
    """One adapter is merged, and not a chain of them; one of itself least of all."""
    shutil.copytree(folder, tmp_path / "second")
    for base in (tmp_path / "second", folder):
        configure(folder, base_model_name_or_path=str(base))
        assert f"{base} is an adapter itself; merge it into its model first" in refusal(folder)


def test_an_adapter_of_the_confirmer_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped cross-encoder is an adapter too."""
    monkeypatch.setattr(source, "CONFIRMER_FOLDER", folder.parent / "adapter")
    configure(folder, base_model_name_or_path=CONFIRMER)
    assert "is an adapter itself" in refusal(folder)


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"'])
def test_a_configuration_that_is_none_is_named(folder: Path, text: str) -> None:
    """An adapter_config.json that cannot be read is named."""
    (folder / ADAPTER).write_text(text, encoding="utf-8")
    assert "adapter_config.json cannot be read" in refusal(folder)


def test_pickled_weights_are_not_loaded(folder: Path) -> None:
    """An adapter whose weights are pickled is refused."""
    (folder / ADAPTER_WEIGHTS).rename(folder / "adapter_model.bin")
    assert "has no weights in safetensors (adapter_model.safetensors); pickled ones are not loaded" in refusal(folder)


def opening(folder: Path) -> str:
    """The sentence with which an adapter is refused when it is opened."""
    found = find_source(str(folder))
    assert found.base is not None
    with pytest.raises(ExportError) as caught:
        open_adapter(found, found.base, trainable=False)
    return str(caught.value)


def test_lacking_weights_are_not_made_up(folder: Path) -> None:
    """A head or an update that the adapter's file lacks would be random."""
    lose(folder, "classifier.weight")
    assert "its adapter_model.safetensors lacks 1 of the weights that it should have, and has 0 others" in opening(
        folder
    )


def test_foreign_weights_are_not_passed_over(folder: Path) -> None:
    """Weights that the configuration does not know are a sign of another one."""
    configure(folder, target_modules=["query"])
    assert "lacks 0 of the weights that it should have, and has 4 others" in opening(folder)


def test_weights_of_another_size_are_refused(folder: Path) -> None:
    """An adapter of a larger model does not fit."""
    shutil.rmtree(folder.parent / "base")
    make_model(folder.parent / "base", hidden=64)
    assert opening(folder).startswith("the adapter adapter does not fit base: ")


def test_truncated_weights_are_refused(folder: Path) -> None:
    """A file that ends early is one sentence."""
    data = (folder / ADAPTER_WEIGHTS).read_bytes()
    (folder / ADAPTER_WEIGHTS).write_bytes(data[: len(data) // 2])
    assert "the adapter adapter does not fit base: " in opening(folder)


def test_what_the_model_lacks_the_adapter_has_to_bring(folder: Path) -> None:
    """A model saved without its pooler gets a random one, unless the adapter has one."""
    model: Any = BertModel.from_pretrained(str(folder.parent / "base"), add_pooling_layer=False)
    model.save_pretrained(folder.parent / "base")
    found = find_source(str(folder))
    assert found.base is not None
    open_adapter(found, found.base, trainable=False)
    configure(folder, modules_to_save=["classifier"])
    lose(folder, "pooler.dense.weight", "pooler.dense.bias")
    assert opening(folder) == (
        "base lacks the weights bert.pooler.dense.bias, bert.pooler.dense.weight, and the adapter does not bring them: "
        "what would be exported were random"
    )
