"""An index: a FAQ's entries and items, ready to search, in one sealed folder.

    manifest.json     `IndexManifest`: the model it belongs to, how it is searched, what calibration found
    faq.json          header and entries
    vectors.npy       (items, dimension) float32, unit length; memory-mapped
    owners.npy        (items,) int64, the entry of every item
    heads.npy         (entries, dimension + 1) float32, each entry's head, and its bias last
    lexicon_*.npy     the items' terms and their weights, a file for each array of `intents.lexical.Lexicon`
    out_of_scope.npy  (messages, dimension) float32, what it was calibrated with; spares the next build their encoding
    items.ann         Annoy's trees; memory-mapped, shared by all processes

The manifest has the sha256 of every other file.
"""

from dataclasses import dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from annoy import AnnoyIndex

from export.sealed import verify_files
from intents.candidates import Candidate, EntryScorer, Mask
from intents.confirm import Confirmer
from intents.decide import Policy
from intents.entries import Entry, Faq, texts_of
from intents.errors import FaqIndexError
from intents.heads import Heads
from intents.items import answer_of, rendered, ways_to_ask
from intents.lexical import Lexicon
from intents.manifest import IndexManifest, read_index_manifest, remedy
from intents.normalise import normalise
from intents.search import AnnoySearch, ExactSearch, Floats, Positions, Search, SearchMode
from intents.suggest import Suggester

FAQ = "faq.json"
VECTORS = "vectors.npy"
OWNERS = "owners.npy"
HEADS = "heads.npy"
LEXICON = {field.name: f"lexicon_{field.name}.npy" for field in fields(Lexicon)}
OUT_OF_SCOPE = "out_of_scope.npy"
ANNOY = "items.ann"


@dataclass(frozen=True)
class FaqIndex:
    """An opened index; `open_index` makes them.

    Attributes:
        manifest: what it is.
        faq: header and entries.
        vectors: (items, dimension) float32, memory-mapped.
        scorer: ranks the entries of the items that a search found.
    """

    manifest: IndexManifest
    faq: Faq
    vectors: Floats
    scorer: EntryScorer
    _annoy: Any
    _phrasings: dict[str, int]
    _ids: dict[str, int]
    _suggester: Suggester
    _firsts: Positions  # (entries,) where each one's items begin
    _days: dict[date, Mask | None] = field(default_factory=dict)  # the last day that was asked for, and its mask
    _shown: dict[int, tuple[tuple[str, ...], str | None]] = field(default_factory=dict)  # phrasings, and plain answer

    @property
    def policy(self) -> Policy:
        """How it decides."""
        return self.manifest.policy

    @property
    def confirmer(self) -> Confirmer | None:
        """How it confirms; None where it was built without a cross-encoder."""
        return self.manifest.confirmer

    def entry_by_id(self, entry_id: str) -> Entry | None:
        """The entry with this id."""
        position = self._ids.get(entry_id)
        return None if position is None else self.faq.entries[position]

    def entry_of(self, normalised: str, today: date) -> int | None:
        """The entry that has this normalised text as a phrasing and is valid on that day."""
        entry = self._phrasings.get(normalised)
        return entry if entry is not None and self.faq.entries[entry].is_valid_on(today) else None

    def allowed_on(self, today: date) -> Mask | None:
        """Which entries may be answered on that day, as (entries,) booleans; None where that is all of them."""
        if today not in self._days:
            valid = np.array([entry.is_valid_on(today) for entry in self.faq.entries])
            self._days.clear()
            self._days[today] = None if valid.all() else valid
        return self._days[today]

    def suggest(self, text: str, today: date) -> list[Entry]:
        """Entries to offer for what a visitor is still typing, of those that are valid on that day; see `Suggester`."""
        return [self.faq.entries[position] for position in self._suggester.find(text, self.allowed_on(today))]

    def phrasing_of(self, item: int) -> str | None:
        """The text of the item at this position; None where that is a question joined with its answer."""
        entry = int(self.scorer.owners[item])
        (ways, _), place = self._shown_of(entry), item - int(self._firsts[entry])
        return ways[place] if place < len(ways) else None

    def rendered(self, candidate: Candidate) -> str:
        """A candidate as text for the cross-encoder."""
        _, answer = self._shown_of(candidate.entry)
        return rendered(self.faq.entries[candidate.entry], self.phrasing_of(candidate.item), answer)

    def _shown_of(self, position: int) -> tuple[tuple[str, ...], str | None]:
        # Reading an answer's Markdown takes a while: it is done when an entry is first needed, and kept.
        if position not in self._shown:
            entry = self.faq.entries[position]
            self._shown[position] = ways_to_ask(entry), answer_of(entry)
        return self._shown[position]

    def search(self, mode: SearchMode) -> Search:
        """How its items are searched: with Annoy's trees, or by an exact scan."""
        plan = self.manifest.plan
        if mode == "exact":
            return ExactSearch(self.vectors, neighbours=plan.neighbours)
        return AnnoySearch(self._annoy, self.vectors, neighbours=plan.neighbours, search_k=plan.search_k)


def open_index(folder: Path, root: Path, *, model_fingerprint: str, model_folder: Path) -> FaqIndex:
    """Open and verify one version of an index.

    Args:
        folder: the version's folder.
        root: the index it belongs to.
        model_fingerprint: fingerprint of the bundle that will encode messages.
        model_folder: that bundle's folder, for the sentence.

    Raises:
        FaqIndexError: it is missing, damaged, of a newer format, or was built with another model.
    """
    manifest = read_index_manifest(folder, root)
    if manifest.model_fingerprint != model_fingerprint:
        raise FaqIndexError(
            f"{root} was built with another model ({manifest.model}) than the one in {model_folder}; build it again "
            f"with `faqwire build FAQ -o {root} --model {model_folder}`, or name the model that it was built with"
        )
    verify_files(folder, manifest, remedy=remedy(root), error=FaqIndexError)
    try:
        faq = msgspec.json.decode((folder / FAQ).read_bytes(), type=Faq)
        vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
        owners = np.load(folder / OWNERS, allow_pickle=False)
        heads = np.load(folder / HEADS, allow_pickle=False)
        lexicon = Lexicon(
            # Plain views: what is taken from a memmap is one again, and that takes its time.
            **{field: np.asarray(np.load(folder / file, mmap_mode="r")) for field, file in LEXICON.items()}
        )
        annoy = AnnoyIndex(manifest.dimension, "angular")
        annoy.load(str(folder / ANNOY))
    except (OSError, EOFError, ValueError, AttributeError) as exc:  # msgspec's errors are ValueErrors
        raise FaqIndexError(f"{folder} cannot be read ({exc}); {remedy(root)}") from exc
    items, entries, dimension = manifest.items, len(faq.entries), manifest.dimension
    consistent = (
        vectors.shape == (items, dimension)
        and annoy.get_n_items() == items > 0
        and owners.shape == (items,)
        and heads.shape == (entries, dimension + 1)
        and bool(np.all(np.diff(owners) >= 0))
        and 0 <= owners[0] <= owners[-1] < entries
        and min(manifest.plan.neighbours, manifest.plan.search_k) > 0
        and min(manifest.weights.head, manifest.weights.lexical) >= 0
        and lexicon.is_whole(items)
        and manifest.policy.is_monotone()
        and (manifest.confirmer is None or manifest.confirmer.is_monotone())
    )
    if not consistent:
        raise FaqIndexError(f"{folder} is inconsistent: its files do not fit each other; {remedy(root)}")
    linear = Heads(np.ascontiguousarray(heads[:, :-1]), heads[:, -1].copy())
    scorer = EntryScorer(owners, linear, lexicon, manifest.weights)
    ids = {entry.id: position for position, entry in enumerate(faq.entries)}
    firsts = np.searchsorted(owners, np.arange(entries))
    suggester = Suggester(faq.entries)
    return FaqIndex(manifest, faq, vectors, scorer, annoy, phrasings_of(faq), ids, suggester, firsts)


def phrasings_of(faq: Faq) -> dict[str, int]:
    """The entry of every normalised phrasing of the enabled entries."""
    return {
        normalise(text): position
        for position, entry in enumerate(faq.entries)
        if entry.enabled
        for _, text in texts_of(entry)
    }
