"""Builds indexes aside, or opens those that are there, and puts messages to them with the models that would serve."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from time import perf_counter

import numpy as np

from export.bundle import Bundle, Variant, open_bundle
from export.runtime.bi_encoder import BiEncoder
from export.runtime.cross_encoder import CrossEncoder
from export.runtime.session import choose_variant
from intents import build
from intents.build import Options, build_index
from intents.calibrate import require_scikit_learn
from intents.entries import Faq
from intents.errors import FaqIndexError, MessagesError
from intents.evaluate import look_up
from intents.folds import Fold, by_entries, by_phrasings, few_shot
from intents.index import FaqIndex, open_index
from intents.labelled import Labelled, read_out_of_scope
from intents.manifest import MANIFEST
from intents.store import current_folder
from intents.systems import Trial, pooled, try_systems
from server.cli.console import ConsoleReporter, bar, open_encoder, say
from server.cli.cross_encoder import find_cross_encoder, open_cross_encoder
from server.cores import usable_cores
from server.engine import device_of
from server.settings import Settings


@dataclass(frozen=True)
class Folded:
    """What the folds of a FAQ came to.

    Attributes:
        trial: all messages of all folds.
        folds: how many there were.
        in_scope: how many phrasings were asked without themselves.
        near: how many without their entries.
        far: how many shipped messages were asked.
    """

    trial: Trial
    folds: int
    in_scope: int
    near: int
    far: int


class Evaluator:
    """One evaluation's models, opened once.

    Args:
        settings: which models, and how they run.
        options: how indexes are built.

    Attributes:
        bundle: the bi-encoder's.
        cross: the cross-encoder's, cut to the length of pairs; None where none is set.
        variant, cross_variant: what they run in; None where there is no cross-encoder.
        threads: how many each model's session has.
        search: how indexes are searched.
        today: the day that all messages are asked on.

    Raises:
        BundleError: a bundle is missing, damaged, or lacks the variant.
        ProviderError: a device was asked for that is not there.
        FaqwireError: scikit-learn is not installed.
    """

    def __init__(self, settings: Settings, options: Options) -> None:
        require_scikit_learn()
        self._settings, self._options = settings, options
        self.bundle: Bundle = open_bundle(settings.model, kind="bi-encoder")
        self.cross: Bundle | None = find_cross_encoder(settings)
        self.device, self.threads = device_of(settings), usable_cores()
        self.search = settings.search
        self.variant = choose_variant(self.bundle, self.device, settings.variant)
        self.cross_variant: Variant | None = None
        if self.cross is not None:
            self.cross_variant = choose_variant(self.cross, self.device, settings.variant)
        self.today: date = datetime.now().astimezone().date()
        self._builders: tuple[BiEncoder, CrossEncoder | None] | None = None
        self._encoder: BiEncoder | None = None
        self._readers: dict[int, CrossEncoder] = {}

    def build(self, faq: Faq, root: Path) -> FaqIndex:
        """Build an index of a FAQ; what an earlier one in the same folder has encoded is not encoded again."""
        if self._builders is None:
            encoder = open_encoder(self._settings.model, threads=self.threads)
            self._builders = encoder, open_cross_encoder(self.cross, threads=self.threads)
        encoder, cross_encoder = self._builders
        with bar() as progress:
            build_index(
                faq,
                encoder,
                root,
                self._options,
                now=datetime.now(UTC),
                reporter=ConsoleReporter(progress),
                cross_encoder=cross_encoder,
            )
        return self.open(root)

    def open(self, path: Path) -> FaqIndex:
        """Open an index as it is: the current version in its folder, or one version by its own.

        Raises:
            FaqIndexError: it is missing or damaged, or was built with other models.
        """
        folder, root = path.resolve(), path
        if (folder / MANIFEST).is_file():
            root = folder.parent.parent
        else:
            folder = current_folder(path)
        fingerprint = self.bundle.manifest.fingerprint
        index = open_index(folder, root, model_fingerprint=fingerprint, model_folder=self._settings.model)
        confirmer = index.confirmer
        if self.cross is not None and confirmer is None:
            say(f"{path} was built without a cross-encoder: nothing that is asked of it is confirmed")
        elif self.cross is not None and confirmer and confirmer.fingerprint != self.cross.manifest.fingerprint:
            raise FaqIndexError(
                f"{path} was built with another cross-encoder ({confirmer.model}) than the one in "
                f"{self.cross.folder}; name the one that it was built with, or leave cross_encoder out"
            )
        return index

    def put(self, messages: Sequence[Labelled], index: FaqIndex) -> Trial:
        """Put messages to every system of an index."""
        if self._encoder is None:
            self._encoder = BiEncoder(self.bundle, self.variant, self.device, threads=self.threads)
            self._encoder.warm_up()
        say(f"asking {len(messages):,} messages")
        with bar() as progress:
            reporter = ConsoleReporter(progress)
            texts, advance = [message.text for message in messages], reporter.encoding(len(messages))
            started = perf_counter()
            vectors = self._encoder.encode(texts, progress=advance)
            seconds = perf_counter() - started
            looked = look_up(messages, vectors, index, index.search(self.search), self.today)
            return try_systems(looked, index, self.today, seconds, self._reader(index), reporter)

    def put_folds(self, faq: Faq, folds: int, seed: int, root: Path) -> Folded:
        """Put a FAQ's phrasings to indexes that lack them, and to some that lack their entries.

        The shipped out-of-scope messages are asked of the former.

        Args:
            faq: the whole of it.
            folds: how many parts to make of it.
            seed: of the parts.
            root: where to build.

        Raises:
            MessagesError: no phrasing can be left out.
        """
        chance = np.random.default_rng(seed)
        ours = by_phrasings(faq, folds, self.today, chance)
        if not ours:
            raise MessagesError(
                "no entry of the FAQ has two phrasings, so none can be left out and asked; add some, or name --messages"
            )
        near = by_entries(faq, folds, self.today, chance)
        far = [Labelled(text, None) for text in read_out_of_scope(build.SHIPPED_OUT_OF_SCOPE)]
        dealt = [Fold(fold.faq, (*fold.messages, *far[i :: len(ours)])) for i, fold in enumerate(ours)]
        trials = []
        for what, parts in (("some phrasings", dealt), ("some entries", near)):
            for number, fold in enumerate(parts, 1):
                say(f"fold {number} of {len(parts)} without {what}")
                trials.append(self.put(fold.messages, self.build(fold.faq, root)))
        in_scope, nearly = (sum(len(fold.messages) for fold in parts) for parts in (ours, near))
        return Folded(pooled(trials), len(ours), in_scope, nearly, len(far))

    def put_shots(
        self, faq: Faq, messages: Sequence[Labelled], shots: int, draws: int, seed: int, root: Path
    ) -> list[Trial]:
        """Put messages to indexes of a few phrasings of each entry, drawn anew for each; one trial for each draw."""
        trials = []
        for draw in range(draws):
            say(f"draw {draw + 1} of {draws}")
            drawn = few_shot(faq, shots, np.random.default_rng((seed, draw)))
            trials.append(self.put(messages, self.build(drawn, root)))
        return trials

    def _reader(self, index: FaqIndex) -> CrossEncoder | None:
        if self.cross is None or self.cross_variant is None or index.confirmer is None:
            return None
        tokens = index.confirmer.pair_tokens
        if tokens not in self._readers:
            bundle = open_bundle(self.cross.folder, kind="cross-encoder")
            options = {"max_tokens": tokens, "threads": self.threads}
            self._readers[tokens] = CrossEncoder(bundle, self.cross_variant, self.device, **options)
            self._readers[tokens].warm_up()
        return self._readers[tokens]
