"""Everything that is loaded before the first message: model, index, and what they were loaded for."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from export.bundle import open_bundle
from export.runtime.bi_encoder import BiEncoder
from export.runtime.session import choose_variant, find_device
from export.runtime.tokens import Tokens
from intents.index import FaqIndex, open_index
from intents.search import Retrieved, Search
from intents.store import current_folder
from server.settings import Settings


@dataclass(frozen=True, slots=True)
class Searched:
    """What a message retrieved, and for how many seconds its batch was searched."""

    found: Retrieved
    seconds: float


@dataclass(frozen=True)
class Engine:
    """A loaded model and index that fit each other.

    Attributes:
        encoder: the bi-encoder, warmed up.
        index: the FAQ's index.
        search: how its items are searched.
    """

    encoder: BiEncoder
    index: FaqIndex
    search: Search

    def retrieve(self, batch: Sequence[Tokens], lane: int) -> list[Searched]:
        """Encode one batch on the lane's own session, and search for it; for the micro-batcher.

        The search is the lane's too: a long one holds up its own batch, and not the event loop.
        """
        vectors = self.encoder.run(batch, lane)
        started = time.perf_counter()
        found = self.search.retrieve(vectors)
        seconds = time.perf_counter() - started
        return [Searched(one, seconds) for one in found]


def load_engine(settings: Settings) -> Engine:
    """Load and verify the bundle and the index, and run a first inference on every session.

    Raises:
        BundleError: the bundle is missing, damaged, or lacks the variant.
        FaqIndexError: the index is missing, damaged, or built with another model.
        ProviderError: CUDA was asked for and is absent.
    """
    bundle = open_bundle(settings.model, kind="bi-encoder")
    folder = current_folder(settings.index)
    index = open_index(
        folder, settings.index, model_fingerprint=bundle.manifest.fingerprint, model_folder=settings.model
    )
    device = find_device(settings.provider)
    variant = choose_variant(bundle, device, settings.variant)
    # On a CPU, sessions of one thread each beat one session with all threads; a GPU is fed by one.
    sessions = settings.sessions or (1 if device.name == "cuda" else usable_cores())
    encoder = BiEncoder(bundle, variant, device, sessions=sessions)
    encoder.warm_up()
    return Engine(encoder, index, index.search(settings.search))


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
