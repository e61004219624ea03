"""Everything that is loaded before the first message: models, index, and what they were loaded for."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from export.bundle import Bundle, Variant, open_bundle
from export.runtime.bi_encoder import BiEncoder
from export.runtime.cross_encoder import CrossEncoder
from export.runtime.encoder import Encoder, Measured
from export.runtime.session import Device, choose_variant, find_device
from export.runtime.tokens import Tokens
from intents.errors import FaqIndexError
from intents.index import FaqIndex, open_index
from intents.search import Retrieved, Search
from intents.store import current_folder
from server.cores import usable_cores
from server.settings import Settings

# Seconds of a start that go into measuring what batches take; the cost models learn the rest from messages.
MEASURING = 0.5
# How many items are searched for before there are messages.
WALKS = 100


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

    @property
    def facts(self) -> dict[str, object]:
        """What it is, for the log."""
        cross_encoder = self.cross_encoder
        return {
            "model": self.encoder.bundle.manifest.source.model,
            "variant": self.encoder.variant,
            "provider": self.encoder.device.provider,
            "sessions": self.encoder.sessions,
            "cross_encoder": None if cross_encoder is None else cross_encoder.bundle.manifest.source.model,
            "index": self.index.manifest.version,
            "entries": self.index.manifest.entries,
        }

    @property
    def unconfirmed(self) -> str | None:
        """Why nothing is confirmed, where something was meant to be."""
        if self.cross_encoder is None and self.index.confirmer is not None:
            return "the index was built with a cross-encoder, and none is set"
        return None

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


def load_engine(settings: Settings, before: Engine | None = None) -> Engine:
    """Load and verify the bundles and the index, and run every session before there are messages.

    Args:
        settings: what to load, and onto what.
        before: one that these settings gave earlier: models that have not changed since are taken from it.

    Raises:
        BundleError: a bundle is missing, damaged, or lacks the variant.
        FaqIndexError: the index is missing, damaged, or built with other models.
        ProviderError: CUDA or TensorRT was asked for and is absent, or refuses an option.
    """
    loader = _Loader(settings, before)
    bundle = open_bundle(settings.model, kind="bi-encoder")
    folder = current_folder(settings.index)
    index = open_index(
        folder, settings.index, model_fingerprint=bundle.manifest.fingerprint, model_folder=settings.model
    )
    encoder, encoder_took = loader.bi_encoder(bundle)
    cross_encoder, cross_encoder_took = loader.cross_encoder(index)
    search = index.search(settings.search)
    search.retrieve(index.vectors[:: max(1, len(index.vectors) // WALKS)])  # maps what searches walk through
    return Engine(encoder, index, search, cross_encoder, encoder_took, cross_encoder_took)


class _Loader:
    """Loads models and runs each of their sessions, unless they are loaded already."""

    def __init__(self, settings: Settings, before: Engine | None) -> None:
        self._settings = settings
        self._before = before
        self._device = device_of(settings)
        # On a CPU, sessions of one thread each beat one session with all threads; and one more than there are cores
        # has something to do while another waits for the interpreter. A GPU is fed by one.
        cores = max(1, usable_cores() // settings.workers)
        self._sessions = settings.sessions or (cores + 1 if self._device.name == "cpu" else 1)

    def bi_encoder(self, bundle: Bundle) -> tuple[BiEncoder, Sequence[Measured]]:
        before = self._before
        if before is not None and before.encoder.bundle.manifest.seal == bundle.manifest.seal:
            return before.encoder, before.encoder_took
        encoder = BiEncoder(bundle, self._variant(bundle), self._device, **self._size())
        return encoder, self._warm_up(encoder)

    def cross_encoder(self, index: FaqIndex) -> tuple[CrossEncoder | None, Sequence[Measured]]:
        folder = self._settings.cross_encoder
        if folder is None:
            return None, ()
        bundle = open_bundle(folder, kind="cross-encoder")
        tokens = _pair_tokens(index, bundle, self._settings)
        last = None if self._before is None else self._before.cross_encoder
        if self._before is not None and last is not None:
            manifest = last.bundle.manifest
            if manifest.seal == bundle.manifest.seal and manifest.max_tokens == tokens:
                return last, self._before.cross_encoder_took
        encoder = CrossEncoder(bundle, self._variant(bundle), self._device, max_tokens=tokens, **self._size())
        return encoder, self._warm_up(encoder)

    def _variant(self, bundle: Bundle) -> Variant:
        return choose_variant(bundle, self._device, self._settings.variant)

    def _size(self) -> dict[str, Any]:
        return {"sessions": self._sessions, "max_rows": self._settings.max_batch}

    def _warm_up(self, encoder: Encoder) -> Sequence[Measured]:
        return encoder.warm_up(
            max_rows=self._settings.max_batch,
            max_batch_tokens=self._settings.max_batch_tokens,
            seconds=MEASURING / (1 if self._settings.cross_encoder is None else 2),
        )


def _pair_tokens(index: FaqIndex, bundle: Bundle, settings: Settings) -> int:
    """How many tokens the pairs have that this index was calibrated with.

    Raises:
        FaqIndexError: it was calibrated with another cross-encoder, or none.
    """
    confirmer = index.confirmer
    if confirmer is None or confirmer.fingerprint != bundle.manifest.fingerprint:
        built = "without a cross-encoder" if confirmer is None else f"with another cross-encoder ({confirmer.model})"
        raise FaqIndexError(
            f"{settings.index} was built {built}, so what {settings.cross_encoder} says of its candidates means "
            f"nothing to it; build it again with `faqwire build FAQ -o {settings.index} --cross-encoder "
            f"{settings.cross_encoder}`, or leave cross_encoder out"
        )
    return min(confirmer.pair_tokens, bundle.manifest.max_tokens)


def device_of(settings: Settings) -> Device:
    """The device that the settings ask for.

    Raises:
        ProviderError: it is absent, or an option is not one of it.
    """
    return find_device(settings.provider, options=settings.provider_options, tensorrt_cache=settings.tensorrt_cache)
