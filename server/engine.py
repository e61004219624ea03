"""Everything that is loaded before the first message: models, index, and what they were loaded for."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from export.bundle import open_bundle
from export.runtime.bi_encoder import BiEncoder
from export.runtime.cross_encoder import CrossEncoder
from export.runtime.encoder import Measured
from export.runtime.session import Device, choose_variant, find_device
from export.runtime.tokens import Tokens
from intents.errors import FaqIndexError
from intents.index import FaqIndex, open_index
from intents.search import Retrieved, Search
from intents.store import current_folder
from server.settings import Settings

# Seconds of a start that go into measuring what batches take; the cost models learn the rest from messages.
MEASURING = 0.5


@dataclass(slots=True)
class Searched:
    """What a message retrieved, and for how many seconds its batch was searched."""

    found: Retrieved
    seconds: float


@dataclass(frozen=True)
class Engine:
    """Loaded models and an index that fit each other.

    Attributes:
        encoder: the bi-encoder, warmed up.
        index: the FAQ's index.
        search: how its items are searched.
        cross_encoder: what confirms candidates, warmed up, with as many sessions as the encoder; None where nothing
            is confirmed.
        encoder_took, cross_encoder_took: how long batches took while they were warmed up.
    """

    encoder: BiEncoder
    index: FaqIndex
    search: Search
    cross_encoder: CrossEncoder | None = None
    encoder_took: Sequence[Measured] = field(default=())
    cross_encoder_took: Sequence[Measured] = field(default=())

    def retrieve(self, batch: Sequence[Tokens], lane: int) -> list[Searched]:
        """Encode one batch on the lane's own session, and search for it; for the micro-batcher.

        The search is the lane's too: a long one holds up its own batch, and not the event loop.
        """
        vectors = self.encoder.run(batch, lane)
        started = time.perf_counter()
        found = self.search.retrieve(vectors)
        seconds = time.perf_counter() - started
        return [Searched(one, seconds) for one in found]

    def score(self, batch: Sequence[Tokens], lane: int) -> list[float]:
        """Read one batch of pairs on the lane's own session; for the micro-batcher.

        Raises:
            RuntimeError: there is no cross-encoder.
        """
        if self.cross_encoder is None:
            raise RuntimeError("there is no cross-encoder")
        logits: list[float] = self.cross_encoder.run(batch, lane).tolist()
        return logits


def load_engine(settings: Settings) -> Engine:
    """Load and verify the bundles and the index, and run every session before there are messages.

    Raises:
        BundleError: a bundle is missing, damaged, or lacks the variant.
        FaqIndexError: the index is missing, damaged, or built with other models.
        ProviderError: CUDA or TensorRT was asked for and is absent, or refuses an option.
    """
    bundle = open_bundle(settings.model, kind="bi-encoder")
    folder = current_folder(settings.index)
    index = open_index(
        folder, settings.index, model_fingerprint=bundle.manifest.fingerprint, model_folder=settings.model
    )
    device = device_of(settings)
    # On a CPU, sessions of one thread each beat one session with all threads; and one more than there are cores has
    # something to do while another waits for the interpreter. A GPU is fed by one.
    sessions = settings.sessions or (usable_cores() + 1 if device.name == "cpu" else 1)
    variant = choose_variant(bundle, device, settings.variant)
    encoder = BiEncoder(bundle, variant, device, sessions=sessions, max_rows=settings.max_batch)
    cross_encoder = _load_cross_encoder(settings, index, device, sessions)
    limits: dict[str, Any] = {
        "max_rows": settings.max_batch,
        "max_batch_tokens": settings.max_batch_tokens,
        "seconds": MEASURING / (1 if cross_encoder is None else 2),
    }
    return Engine(
        encoder,
        index,
        index.search(settings.search),
        cross_encoder,
        encoder.warm_up(**limits),
        () if cross_encoder is None else cross_encoder.warm_up(**limits),
    )


def _load_cross_encoder(settings: Settings, index: FaqIndex, device: Device, sessions: int) -> CrossEncoder | None:
    folder = settings.cross_encoder
    if folder is None:
        return None
    bundle = open_bundle(folder, kind="cross-encoder")
    confirmer = index.confirmer
    if confirmer is None or confirmer.fingerprint != bundle.manifest.fingerprint:
        built = "without a cross-encoder" if confirmer is None else f"with another cross-encoder ({confirmer.model})"
        raise FaqIndexError(
            f"{settings.index} was built {built}, so what {folder} says of its candidates means nothing to it; "
            f"build it again with `faqwire build FAQ -o {settings.index} --cross-encoder {folder}`, or leave "
            "cross_encoder out"
        )
    variant = choose_variant(bundle, device, settings.variant)
    return CrossEncoder(
        bundle, variant, device, max_tokens=confirmer.pair_tokens, sessions=sessions, max_rows=settings.max_batch
    )


def device_of(settings: Settings) -> Device:
    """The device that the settings ask for.

    Raises:
        ProviderError: it is absent, or an option is not one of it.
    """
    return find_device(settings.provider, options=settings.provider_options, tensorrt_cache=settings.tensorrt_cache)


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
