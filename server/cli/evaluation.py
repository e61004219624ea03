"""How `faqwire eval` finds out: by labelled messages, folds of the FAQ, a few phrasings, or another index beside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from intents.build import Options
from intents.comparison import Versus, compare, versus
from intents.entries import Faq
from intents.formats import load_faq
from intents.index import FaqIndex
from intents.labelled import Labelled, read_labelled
from intents.normalise import normalise
from intents.systems import Trial, pooled
from server.cli.console import report_left_out
from server.cli.evaluator import Evaluator
from server.cli.findings import Findings
from server.settings import Settings


@dataclass(frozen=True)
class Wanted:
    """What to evaluate.

    Attributes:
        faq: what to build an index of; None where `index` is there to be evaluated.
        messages: what to put to it; None puts the FAQ's own phrasings to folds of it.
        index: an index to evaluate as it is, or None.
        against: another one to compare with, or None.
        folds: how many.
        shots: how many phrasings of each entry to build with; None is all of them.
        draws: how often to draw them.
        seed: of all that is drawn at random.
    """

    faq: Path | None
    messages: Path | None
    index: Path | None
    against: Path | None
    folds: int
    shots: int | None
    draws: int
    seed: int


def evaluate(wanted: Wanted, settings: Settings, options: Options, root: Path) -> Findings:
    """Evaluate.

    Args:
        wanted: what.
        settings: with which models.
        options: how indexes are built.
        root: where indexes are built.

    Raises:
        FaqwireError: the FAQ, the messages, an index or a model cannot be used.
    """
    faq = None
    if wanted.faq is not None:
        loaded = load_faq(wanted.faq)
        report_left_out(loaded.left_out)
        faq = loaded.faq
    evaluator = Evaluator(settings, options)
    index, against = (None if path is None else evaluator.open(path) for path in (wanted.index, wanted.against))
    faqs = [one.faq for one in (index, against) if one is not None] + ([] if faq is None else [faq])
    labelled = [] if wanted.messages is None else _messages(wanted.messages, faqs)
    session = _Session(wanted, evaluator, options.out_of_scope_share)
    if faq is not None and wanted.messages is None:
        return session.by_folds(faq, root)
    if faq is not None and wanted.shots is not None:
        return session.by_shots(faq, labelled, wanted.shots, root)
    if faq is not None:
        index = evaluator.build(faq, root)
    if index is None:
        raise ValueError("there is neither a FAQ nor an index to evaluate")
    return session.by_messages(index, labelled, against)


def _messages(path: Path, faqs: Sequence[Faq]) -> list[Labelled]:
    """Labelled messages; of two indexes, either may have an entry that the other lacks, and so cannot answer."""
    ids = {entry.id for faq in faqs for entry in faq.entries if entry.enabled}
    labelled, left_out = read_labelled(path, ids)
    report_left_out(left_out)
    return labelled


@dataclass(frozen=True)
class _Session:
    """One evaluation under way.

    Attributes:
        wanted: what is evaluated.
        evaluator: its models.
        share: of out-of-scope messages that calibration is to assume.
    """

    wanted: Wanted
    evaluator: Evaluator
    share: float

    def by_messages(self, index: FaqIndex, labelled: Sequence[Labelled], against: FaqIndex | None) -> Findings:
        """Put labelled messages to an index, and to another one."""
        share = index.manifest.calibration.out_of_scope_share
        trial, beside = self.evaluator.put(labelled, index), None
        if against is not None:
            other = self.evaluator.put(labelled, against)
            beside = versus(trial, other, str(self.wanted.against), share, seed=self.wanted.seed)
        return self._findings([trial], share, index.faq, {"kind": "messages"}, [], index, beside)

    def by_folds(self, faq: Faq, root: Path) -> Findings:
        """Put a FAQ's own phrasings to folds of it."""
        wanted = self.wanted
        folded = self.evaluator.put_folds(faq, wanted.folds, wanted.seed, root)
        ours = (
            f"{folded.folds} folds (seed {wanted.seed}): in scope are {folded.in_scope:,} phrasings, of entries with "
            "two or more, asked of indexes without them"
        )
        others = (
            f"out of scope are {folded.near:,} phrasings, asked of indexes without their entries (near), and "
            f"{folded.far:,} shipped messages, which calibration knows (far)"
        )
        method = {
            "kind": "folds",
            "folds": folded.folds,
            "in_scope": folded.in_scope,
            "near": folded.near,
            "far": folded.far,
        }
        return self._findings([folded.trial], self.share, faq, method, [ours, others])

    def by_shots(self, faq: Faq, labelled: Sequence[Labelled], shots: int, root: Path) -> Findings:
        """Put labelled messages to indexes of a few phrasings of each entry."""
        draws, seed = self.wanted.draws, self.wanted.seed
        trials = self.evaluator.put_shots(faq, labelled, shots, draws, seed, root)
        note = (
            f"{shots} phrasings of each entry, drawn at random {draws} times (seed {seed}); figures are means over the "
            "draws, ± their standard deviation"
        )
        return self._findings(trials, self.share, faq, {"kind": "shots", "shots": shots, "draws": draws}, [note])

    def _findings(
        self,
        trials: Sequence[Trial],
        share: float,
        faq: Faq,
        method: Mapping[str, Any],
        notes: Sequence[str],
        index: FaqIndex | None = None,
        beside: Versus | None = None,
    ) -> Findings:
        wanted, evaluator = self.wanted, self.evaluator
        model, place = evaluator.bundle.manifest.source.model, wanted.index or wanted.faq
        manifest = None if index is None else index.manifest
        facts = {
            **{name: _text(path) for name, path in (("faq", wanted.faq), ("messages_file", wanted.messages))},
            "index": _text(wanted.index),
            "model": model,
            "variant": evaluator.variant,
            "cross_encoder_variant": evaluator.cross_variant,
            "provider": evaluator.device.provider,
            "threads": evaluator.threads,
            "search": evaluator.search,
            **{
                name: msgspec.to_builtins(getattr(manifest, name, None))
                for name in ("plan", "calibration", "confirmer", "confirmed")
            },
        }
        timing = (
            f"milliseconds are wall clock that models took in this run, in batches, on {evaluator.threads} threads; "
            "searching is not among them"
        )
        reweighted = f"reweighted figures are at {share:.0%} of messages out of scope, which calibration assumed"
        trial = pooled(trials)
        return Findings(
            title=f"{place and place.name}, {model} ({evaluator.variant})",
            method={**method, "seed": wanted.seed, "out_of_scope_share": share},
            notes=(*notes, *self._learnt(trial), reweighted, timing),
            comparison=compare(trials, share, seed=wanted.seed),
            versus=beside,
            trial=trial,
            questions={entry.id: entry.question for entry in faq.entries},
            facts=facts,
        )

    def _learnt(self, trial: Trial) -> Sequence[str]:
        """What to say where the cross-encoder knows some of the messages by heart."""
        if self.evaluator.cross is None or "cascade" not in trial.runs:
            return ()
        learnt = self.evaluator.cross.learnt()
        asked = [normalise(judged.message.text) for judged in trial.runs["cascade"].judged]
        known = sum(text in learnt for text in asked)
        note = f"the cross-encoder was trained on {known:,} of the {len(asked):,} messages, and knows them by heart"
        return (note,) if known else ()


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
