"""What an index says of itself: its `manifest.json`, which has the sha256 of every other file of its folder."""

from pathlib import Path

import msgspec

from export.sealed import Sealed, read_manifest
from intents.candidates import Weights
from intents.confirm import Confirmer
from intents.decide import Policy
from intents.errors import FaqIndexError

FORMAT = 5
MANIFEST = "manifest.json"


class SearchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How hard Annoy searches, and what that was measured to give.

    Attributes:
        trees, search_k: Annoy's parameters.
        neighbours: how many items are retrieved for a message.
        held_out: how many phrasings, kept out of a trial index, it was measured on.
        agreement: share of them whose top entry was that of the exact scan.
        recall_at_10: share of their ten nearest items that were found.
        microseconds: median time of one search, on the machine that built it.
    """

    trees: int
    search_k: int
    neighbours: int
    held_out: int
    agreement: float
    recall_at_10: float
    microseconds: float


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy is expected to give.

    Shares are of messages at the expected share of out-of-scope ones.

    Attributes:
        precision: share of answered messages whose entry is right; None where none is answered.
        answered: share of in-scope messages that are answered.
        clarified: share of in-scope messages that get options.
        refused: share of out-of-scope messages that get "no_match".
        calibration_error: over 15 bins of equal mass.
    """

    precision: float | None
    answered: float
    clarified: float
    refused: float
    calibration_error: float


class Calibration(Expected, frozen=True, kw_only=True):
    """What the thresholds were computed from, and what they are expected to give.

    Attributes:
        target_precision: what was asked for.
        out_of_scope_share: the expected share of messages that the FAQ does not answer.
        in_scope, near, far: how many held-out phrasings, phrasings of left-out entries, and shipped out-of-scope
            messages were scored.
        set_aside: shipped out-of-scope messages that this FAQ seems to answer, and that were not used.
        notes: what was assumed because the FAQ could not tell.
    """

    target_precision: float
    out_of_scope_share: float
    in_scope: int
    near: int
    far: int
    set_aside: int
    notes: tuple[str, ...] = ()


class Confirmed(Expected, frozen=True, kw_only=True):
    """What the confirmer was fitted on, and what the cascade is expected to give with it.

    Attributes:
        messages: how many of the calibration's messages the cross-encoder read.
        pairs: with how many candidates, all of them together.
        share_confirmed: expected share of messages that are confirmed.
        notes: what an operator should know about this cross-encoder.
    """

    messages: int
    pairs: int
    share_confirmed: float
    notes: tuple[str, ...] = ()


class IndexManifest(Sealed, frozen=True, kw_only=True):
    """What an index's `manifest.json` says.

    Attributes:
        version: the folder's name, unique among the versions of an index.
        created: when it was built, ISO 8601, UTC.
        model: name of the model.
        model_fingerprint: the bundle that encoded it, and the only one it may be searched with.
        dimension: length of its vectors.
        recipe: digest of everything that decides its content.
        entries, items: how many there are.
        texts: digest of what the items' texts were; their vectors are used again only where it is still the same.
        out_of_scope: sha256 of the out-of-scope messages that it was calibrated with.
        plan: how it is searched.
        weights: what counts in an entry's score beside its nearest item.
        policy: how it decides.
        calibration: where the policy comes from.
        confirmer: how it confirms; None where it was built without a cross-encoder.
        confirmed: where the confirmer comes from; None where there is none.
        built_with: versions of the packages that built it.
    """

    version: str
    created: str
    model: str
    model_fingerprint: str
    dimension: int
    recipe: str
    entries: int
    items: int
    texts: str
    out_of_scope: str
    plan: SearchPlan
    weights: Weights
    policy: Policy
    calibration: Calibration
    confirmer: Confirmer | None
    confirmed: Confirmed | None
    built_with: dict[str, str]


def remedy(folder: Path) -> str:
    """What to do about an index that cannot be used."""
    return f"build it again with `faqwire build FAQ -o {folder}`"


def read_index_manifest(folder: Path, root: Path) -> IndexManifest:
    """Read a version's manifest alone.

    Args:
        folder: the version's folder.
        root: the index it belongs to, for the sentence.

    Raises:
        FaqIndexError: it is missing, damaged, or of a newer format.
    """
    return read_manifest(
        folder, IndexManifest, MANIFEST, newest=FORMAT, noun="FAQ index", remedy=remedy(root), error=FaqIndexError
    )
