"""`faqwire train`: a cross-encoder learns from FAQs."""

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from export.errors import AdapterError, TrainingError
from server.cli import options
from server.cli.options import PATH

if TYPE_CHECKING:
    from export.groups import Group
    from export.learnt import Learnt
    from export.runtime.bi_encoder import BiEncoder
    from export.source import Source
    from export.training.figures import Trained
    from export.training.train import Recipe, Trainer
    from intents.entries import Faq
    from intents.labelled import Labelled

RECORD = "training.json"
PACKAGES = ("peft", "scipy", "sklearn", "torch", "transformers")
SMALL = 2  # FAQs, of which none can be left out whole
READ = 5  # candidates of a message that are judged: as many as a server confirms unless it is told otherwise


@click.command
@click.argument("faqs", nargs=-1, type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="Folder of the adapter.")
@click.option("--messages", type=PATH, help="CSV of `text,expected` to learn from as well, with a single FAQ.")
@options.model
@click.option("--start", help="Model to go on from: a name or folder.  [default: faqwire/confirmer]")
@click.option(
    "--epochs", type=click.FloatRange(0.01, 1000), default=2.0, show_default=True, help="Passes over the data."
)
@click.option("--rate", type=click.FloatRange(1e-7, 1), default=5e-4, show_default=True, help="Learning rate.")
@click.option("--rank", type=click.IntRange(1, 256), default=16, show_default=True, help="Of a new adapter.")
@click.option("--layers", type=click.IntRange(1), default=6, show_default=True, help="How many a new adapter changes.")
@click.option("--pair-tokens", type=click.IntRange(16, 512), default=64, show_default=True, help="Most of a pair.")
@click.option("--leave-out", type=click.IntRange(2), default=14, show_default=True, help="One FAQ in so many.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True)
def command(
    faqs: tuple[Path, ...],
    output: Path,
    messages: Path | None,
    model: Path | None,
    start: str | None,
    leave_out: int,
    **recipe: float,
) -> None:
    """Train a cross-encoder on FAQS, as `faqwire build` takes them; without any, on the sample shop's.

    Of one FAQ or two some phrasings are left out and judged by, of more whole FAQs are. With several, the file
    NAME_messages.csv beside a FAQ is learnt from as well. Where the trained model is not better on what was left out
    than the one that it went on from, nothing is written.

    What is written is a low-rank adapter: `faqwire export FOLDER -o BUNDLE` makes a bundle of it. Training that was
    interrupted goes on from its last check when it is started again in the same way.
    """
    lacking = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if lacking:
        raise TrainingError(f"training needs {', '.join(lacking)}; install `faqwire[build,export]`")
    from export.sealed import staged
    from export.source import CONFIRMER, find_source
    from export.training.train import Recipe, Trainer
    from server.cli.console import open_encoder, out, say
    from server.cores import usable_cores
    from server.settings import read_settings

    if messages is not None and len(faqs) > 1:
        raise click.UsageError(
            "--messages goes with a single FAQ; beside each of several its NAME_messages.csv is read"
        )
    if not faqs:
        faqs = (options.SAMPLE_FAQ,)
        say("no FAQ was named: taking the sample shop's")
    lessons = [_read(path, messages, beside=len(faqs) > 1) for path in faqs]
    chosen = Recipe(**recipe)  # type: ignore[arg-type]  # click has seen to the types
    source = find_source(start or CONFIRMER)
    encoder = open_encoder(read_settings(None, model=model).model, threads=usable_cores())
    scratch = output.absolute().parent / f".{output.absolute().name}.training"
    trainer = Trainer(source, chosen, scratch)
    with staged(output, RECORD, error=AdapterError) as folder:
        material = _mine(lessons, encoder, leave_out, chosen.seed)
        trained = _train(trainer, material)
        if not trained.is_better:
            trainer.forget()
            raise TrainingError(
                f"the trained model is not better than {source.name} on the {', '.join(material.left_out)}, so nothing "
                "was written; keep that one, or train on more phrasings"
            )
        trainer.save(folder)
        _learnt(source, material).write(folder)
        _record(folder / RECORD, source, chosen, material, trained)
    trainer.forget()
    for name, figures in trained.after.items():
        out.print(f"{name}: {figures}", markup=False)
    out.print(f"adapter in {output}; `faqwire export {output} -o var/cross-encoder` makes a bundle of it", markup=False)


@dataclass(frozen=True)
class _Lesson:
    """A FAQ, its labelled messages, and the sha256 of every file that was read."""

    name: str
    faq: "Faq"
    labelled: "list[Labelled]"
    files: dict[str, str]


def _read(path: Path, messages: Path | None, *, beside: bool) -> _Lesson:
    """Read a FAQ and its messages: those that are named, or the file beside it where there is one.

    Raises:
        TrainingError: no entry is enabled.
    """
    from export.sealed import sha256_of
    from intents.formats import load_faq
    from intents.labelled import read_labelled
    from server.cli.console import report_left_out

    loaded = load_faq(path)
    report_left_out(loaded.left_out)
    ids = {entry.id for entry in loaded.faq.entries if entry.enabled}
    if not ids:
        raise TrainingError(f"{path}: has no enabled entry to learn from; enable some, or leave the FAQ out")
    files = [path] if path.is_file() else sorted(path.rglob("*.y*ml"))
    own = path.absolute().parent / f"{path.absolute().stem}_messages.csv"
    if messages is None and beside and own.is_file():
        messages = own
    labelled: list[Labelled] = []
    if messages is not None:
        labelled, rows = read_labelled(messages, ids)
        report_left_out(rows)
        files.append(messages)
    return _Lesson(path.name, loaded.faq, labelled, {file.name: sha256_of(file) for file in files})


@dataclass
class _Material:
    """What is learnt from, and by name what is judged by.

    Attributes:
        groups: to learn from.
        left_out: to judge by.
        faqs: names of those that were left out whole.
        files: the sha256 of every file that was read.
    """

    groups: "list[Group]" = field(default_factory=list)
    left_out: "dict[str, list[Group]]" = field(default_factory=dict)
    faqs: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def judge_by(self, name: str, groups: "list[Group]") -> None:
        """Judge by groups as they are confirmed: by the first candidates, if the right one is among them."""
        kept = [group for group in groups if group.right is None or group.right < READ]
        served = [replace(group, candidates=group.candidates[:READ]) for group in kept]
        self.left_out.setdefault(name, []).extend(served)


def _mine(lessons: Sequence[_Lesson], encoder: "BiEncoder", leave_out: int, seed: int) -> _Material:
    """Find all messages their candidates.

    Args:
        lessons: at least one.
        encoder: finds them.
        leave_out: of more FAQs than `SMALL` one in so many is left out, and at least one.
        seed: of the choice of phrasings that are left out otherwise.
    """
    import numpy as np

    from intents.groups import Miner, split
    from server.cli.console import say

    material = _Material()
    leave_out = min(leave_out, len(lessons))
    for place, lesson in enumerate(lessons):
        say(f"finding candidates in {lesson.name}")
        material.files |= lesson.files
        labelled = lesson.labelled
        if len(lessons) <= SMALL:
            faq, kept = split(lesson.faq, np.random.default_rng(seed))
            away = set(kept)
            labelled = [one for one in labelled if one not in away]
            miner = Miner(faq, encoder)
            material.judge_by("left-out phrasings", miner.messages(kept))
        else:
            miner = Miner(lesson.faq, encoder)
            if place % leave_out == leave_out // 2:
                material.faqs.append(lesson.name)
                material.judge_by("left-out FAQs", miner.messages(labelled) or miner.phrasings())
                continue
        material.groups += miner.phrasings() + miner.messages(labelled)
    judged = ", ".join(f"{len(groups):,} ({name})" for name, groups in material.left_out.items())
    say(f"{len(material.groups):,} messages to learn from; to judge by: {judged}")
    return material


def _train(trainer: "Trainer", material: _Material) -> "Trained":
    from server.cli.console import bar, say

    with bar() as drawn:
        task = drawn.add_task("training")

        def progress(step: int, steps: int, loss: float) -> None:
            drawn.update(task, total=steps, completed=step, description=f"loss {loss:.3f}")

        return trainer.train(material.groups, material.left_out, say, progress)


def _learnt(source: "Source", material: _Material) -> "Learnt":
    """The messages that the adapter has learnt, those of the one that it went on from included."""
    from export.learnt import Learnt
    from intents.normalise import normalise

    before = Learnt.read(source.folder, error=AdapterError)
    return before | Learnt.of({normalise(group.message) for group in material.groups})


def _record(path: Path, source: "Source", recipe: "Recipe", material: _Material, trained: "Trained") -> None:
    """Write down what was trained on what, and what came of it."""
    from importlib.metadata import version

    from export.sealed import encode_json

    record = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "start": {"model": source.name, "revision": source.revision, "weights": source.weights},
        "recipe": asdict(recipe),
        "messages": len(material.groups),
        "left_out": {name: len(groups) for name, groups in material.left_out.items()},
        "left_out_faqs": material.faqs,
        "before": {name: asdict(one) for name, one in trained.before.items()},
        "after": {name: asdict(one) for name, one in trained.after.items()},
        "files": material.files,
        "made_with": {name: version(name) for name in ("faqwire", "peft", "torch", "transformers")},
    }
    path.write_bytes(encode_json(record))
