"""A low-rank adapter on the model that it adapts, and the two made one.

Weights that a model's files lack are random: a head, where the model was made for something else. So an adapter has to
bring them, and it is refused where it does not, or where it has other weights than its configuration says.
"""

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.source import ADAPTER_WEIGHTS, Source

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


@contextmanager
def whole(source: Source) -> Iterator[Source]:
    """The source as one folder that transformers can load: itself, or a merged copy for as long as the context lasts.

    Raises:
        ExportError: the adapter does not fit the model.
    """
    if source.base is None:
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="faqwire-merged-") as folder:
        _merge(source, source.base, Path(folder))
        yield replace(source, folder=Path(folder), base=None)


def _merge(source: Source, base: Source, into: Path) -> None:
    adapted = open_adapter(source, base, trainable=False)
    try:
        merged: Any = adapted.merge_and_unload(safe_merge=True)
    except ValueError as exc:
        raise ExportError(f"{source.name} cannot be merged into {base.name}: {exc}") from exc
    merged.save_pretrained(into)
    for name in _TOKENIZER_FILES:
        if (base.folder / name).is_file():
            shutil.copyfile(base.folder / name, into / name)


def open_classifier(source: Source) -> tuple[Any, set[str]]:
    """A whole model in torch with a head of one logit, and the names of its weights that its files lack.

    Raises:
        ExportError: it cannot be loaded so.
    """
    try:
        from transformers import AutoModelForSequenceClassification
    except ImportError as exc:
        raise ExportError(f"a model is loaded with the export extra ({exc}); install `faqwire[export]`") from exc

    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            str(source.folder), num_labels=1, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except Exception as exc:  # transformers and safetensors raise anything
        raise ExportError(f"{source.folder} cannot be loaded as a cross-encoder: {exc}") from exc
    return model, set(report["missing_keys"])


def open_adapter(source: Source, base: Source, *, trainable: bool) -> Any:
    """A PEFT model: `base` with the adapter `source` on it.

    Raises:
        ExportError: it cannot be loaded, or its weights are not those that it should have.
    """
    model, missing = open_classifier(base)
    try:
        from peft import PeftConfig, PeftModelForSequenceClassification
        from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
        from safetensors.torch import load_file
    except ImportError as exc:
        raise ExportError(f"an adapter is loaded with the export extra ({exc}); install `faqwire[export]`") from exc

    try:
        config = PeftConfig.from_pretrained(str(source.folder))
        config.inference_mode = not trainable
        adapted = PeftModelForSequenceClassification(model, config)
        expected = get_peft_model_state_dict(adapted, save_embedding_layers=False).keys()
        weights = load_file(source.folder / ADAPTER_WEIGHTS)
        names = set(weights)
        if names == expected:
            set_peft_model_state_dict(adapted, weights)
    except Exception as exc:  # peft and safetensors raise anything
        raise ExportError(f"the adapter {source.name} does not fit {base.name}: {exc}") from exc
    if names != expected:
        raise ExportError(
            f"the adapter {source.name} does not fit {base.name}: its {ADAPTER_WEIGHTS} lacks "
            f"{len(expected - names)} of the weights that it should have, and has {len(names - expected)} others"
        )
    check_complete(base, missing, names)
    return adapted


def check_complete(base: Source, missing: Collection[str], brought: Collection[str]) -> None:
    """Make sure that an adapter brings what its model lacks.

    Args:
        base: the model.
        missing: names of its weights that its files lack.
        brought: names of the adapter's weights.

    Raises:
        ExportError: it does not.
    """
    lost = sorted(name for name in missing if f"base_model.model.{name}" not in brought)
    if lost:
        raise ExportError(
            f"{base.name} lacks the weights {', '.join(lost[:3])}{' and others' if len(lost) > 3 else ''}, and the "
            "adapter does not bring them: what would be exported were random"
        )
