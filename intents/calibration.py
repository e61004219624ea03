"""How an index decides and how it confirms, from the FAQ's own messages or from what is assumed of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import structs

from export.bundle import BundleManifest
from export.learnt import Learnt
from intents.calibrate import calibrate
from intents.calibrate_confirmer import fit_confirmer
from intents.confirm import Confirmer, Score
from intents.decide import Policy
from intents.entries import Entry
from intents.holdout import Heldout, Messages
from intents.items import Item
from intents.manifest import Calibration, Confirmed
from intents.prior import Prior, read_prior
from intents.reading import Read, read_messages


@dataclass(frozen=True)
class Assumed:
    """What takes the place of messages that a FAQ is too small to give.

    Attributes:
        prior: messages that were put to other FAQs.
        notes: what else was assumed of this one.
    """

    prior: Prior
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Reader:
    """A cross-encoder, as far as calibration is concerned.

    Attributes:
        manifest: its bundle's, cut to the length that pairs are cut to.
        score: reads pairs.
        learnt: the messages that it was trained on.
    """

    manifest: BundleManifest
    score: Score
    learnt: Learnt


@dataclass(frozen=True)
class Calibrated:
    """What an index's manifest says of decisions; the last two are None where nothing confirms."""

    policy: Policy
    calibration: Calibration
    confirmer: Confirmer | None = None
    confirmed: Confirmed | None = None


def prior_for(held_out: Heldout, model_fingerprint: str) -> Prior | None:
    """What to assume of a FAQ with too little to hold out; None where it has enough, or nothing is known to assume."""
    if not held_out.few:
        return None
    prior = read_prior()
    return prior if prior.model_fingerprint == model_fingerprint else None


def calibrate_index(
    own: Messages,
    entries: Sequence[Entry],
    items: Sequence[Item],
    assumed: Assumed | None,
    reader: Reader | None,
    *,
    candidates: int,
    target_precision: float,
    out_of_scope_share: float,
) -> Calibrated:
    """Compute how an index decides, and how it confirms.

    Args:
        own: the FAQ's messages.
        entries: the FAQ's.
        items: the index's.
        assumed: what to calibrate on in place of `own`, or None.
        reader: the cross-encoder that confirms, or None. One that gave the prior's logits has nothing to read.
        candidates: how many it reads of a message.
        target_precision: of answered messages, at the expected share.
        out_of_scope_share: expected share of messages that the FAQ does not answer.

    Raises:
        FaqIndexError: a logit is not a number, or infinite.
    """
    prior = None if assumed is None else assumed.prior
    posed, of = (own, entries) if assumed is None else (assumed.prior.messages(assumed.notes), assumed.prior.entries)
    # What held for other FAQs holds less for this one: on those, thresholds allow half of the errors that it may make.
    aim = target_precision if assumed is None else (1 + target_precision) / 2
    policy, calibration = calibrate(
        posed,
        target_precision=aim,
        out_of_scope_share=out_of_scope_share,
        smalltalk=frozenset(i for i, entry in enumerate(of) if entry.kind == "smalltalk"),
    )
    calibration = structs.replace(calibration, target_precision=target_precision)
    if reader is None:
        return Calibrated(policy, calibration)
    if prior is not None and prior.fits_confirmer(reader.manifest.fingerprint, reader.manifest.max_tokens):
        read = Read(posed, prior.logits(candidates), pairs=0)
    else:
        of, read = entries, read_messages(own, entries, items, candidates, reader.score, reader.learnt)
    confirmer, confirmed = fit_confirmer(
        read,
        reader.manifest,
        of,
        policy,
        candidates=candidates,
        target_precision=aim,
        out_of_scope_share=out_of_scope_share,
    )
    return Calibrated(policy, calibration, confirmer, confirmed)
