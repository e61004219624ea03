"""Building an index: what is redone, what is kept, and what is left when something goes wrong."""

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from export.bundle import Bundle
from export.errors import FaqwireError
from export.runtime.bi_encoder import BiEncoder
from intents import build
from intents.build import Options, Reporter, build_index, up_to_date
from intents.entries import Entry, Faq
from intents.errors import FaqIndexError
from intents.index import IndexManifest
from intents.items import items_of
from intents.store import current_folder, current_manifest, list_versions
from tests.intents.small import SMALL, Builder, Opener

NOW = datetime(2026, 11, 23, 8, 15, 0, 123_456, tzinfo=UTC)


def changed(position: int, **fields: Any) -> Faq:
    """The small FAQ with other fields in one entry."""
    entries = list(SMALL.entries)
    entries[position] = msgspec.structs.replace(entries[position], **fields)
    return Faq(header=SMALL.header, entries=tuple(entries))


def state(root: Path) -> dict[str, Any]:
    """Everything that lies in a folder: bytes of files, targets of links."""

    def of(path: Path) -> Path | bytes | None:
        if path.is_symlink():
            return path.readlink()
        return path.read_bytes() if path.is_file() else None

    return {str(path.relative_to(root)): of(path) for path in root.rglob("*")}


def test_a_build_is_current_and_opens(build_quickly: Builder, open_current: Opener, tmp_path: Path) -> None:
    """A first build makes the folder, encodes everything, and is the version that is served from now on."""
    built = build_quickly(SMALL, tmp_path / "deep" / "index", now=NOW)
    index = open_current(tmp_path / "deep" / "index")
    items = items_of(SMALL.entries)
    assert index.manifest == built.manifest
    assert not built.up_to_date
    assert built.encoded == len(items) == built.manifest.items
    assert index.faq == SMALL
    assert (built.manifest.entries, built.manifest.dimension) == (len(SMALL.entries), 384)
    assert built.manifest.version.startswith("20261123T081500123Z-")
    assert built.manifest.created == "2026-11-23T08:15:00+00:00"
    assert set(built.manifest.built_with) == {"faqwire", "annoy", "numpy"}
    assert current_folder(tmp_path / "deep" / "index").name == built.manifest.version


def test_vectors_are_of_their_texts(small_root: Path, open_current: Opener, encoder: BiEncoder) -> None:
    """Every row is the vector of its item's text, and its owner is the item's entry."""
    index = open_current(small_root)
    items = items_of(SMALL.entries)
    np.testing.assert_allclose(index.vectors, encoder.encode([item.text for item in items]), atol=1e-5)
    assert index.scorer.owners.tolist() == [item.entry for item in items]


@pytest.mark.usefixtures("quick")
def test_what_would_be_the_same_is_up_to_date(root: Path, bundle: Bundle) -> None:
    """The same FAQ, model and options need no second build."""
    manifest = up_to_date(root, SMALL, bundle.manifest.fingerprint, Options())
    assert manifest is not None
    assert manifest == current_manifest(root)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("faq", "fingerprint", "options"),
    [
        (changed(0, answer="Always."), None, Options()),
        (changed(0, enabled=False), None, Options()),
        (Faq(header=SMALL.header, entries=SMALL.entries[::-1]), None, Options()),
        (Faq(header=msgspec.structs.replace(SMALL.header, name="Other"), entries=SMALL.entries), None, Options()),
        (SMALL, "another model", Options()),
        (SMALL, None, Options(target_precision=0.8)),
        (SMALL, None, Options(out_of_scope_share=0.5)),
    ],
)
def test_what_would_differ_is_not_up_to_date(
    root: Path, bundle: Bundle, faq: Faq, fingerprint: str | None, options: Options
) -> None:
    """Any change of texts, order, header, model or options asks for a build."""
    assert up_to_date(root, faq, fingerprint or bundle.manifest.fingerprint, options) is None


@pytest.mark.usefixtures("quick")
def test_what_is_damaged_is_not_up_to_date(root: Path, bundle: Bundle) -> None:
    """An index of the right recipe whose files are damaged is built again, not praised."""
    (current_folder(root) / "owners.npy").write_bytes(b"")
    assert up_to_date(root, SMALL, bundle.manifest.fingerprint, Options()) is None


def test_other_out_of_scope_messages_ask_for_a_build(root: Path, bundle: Bundle) -> None:
    """A faqwire that ships another out-of-scope set calibrates again."""
    assert up_to_date(root, SMALL, bundle.manifest.fingerprint, Options()) is None


def test_nothing_is_up_to_date_before_the_first_build(bundle: Bundle, tmp_path: Path) -> None:
    """Where there is no index, there is nothing to be up to date."""
    assert up_to_date(tmp_path / "index", SMALL, bundle.manifest.fingerprint, Options()) is None


@pytest.mark.parametrize(
    ("faq", "texts"),
    [
        (SMALL, 0),
        (Faq(header=SMALL.header, entries=SMALL.entries[::-1]), 0),
        (changed(0, phrasings=(*SMALL.entries[0].phrasings, "a new one")), 1),
        (changed(0, answer="Always."), 1),
        (changed(0, question="Since when?"), 2),
        (changed(6, enabled=True), 4),
        (changed(1, enabled=False), 0),
    ],
)
def test_only_new_texts_are_encoded(
    root: Path, build_quickly: Builder, open_current: Opener, encoder: BiEncoder, faq: Faq, texts: int
) -> None:
    """A changed FAQ takes the vectors of unchanged texts from the version before, each to its new place."""
    built = build_quickly(faq, root)
    assert built.encoded == texts
    expected = encoder.encode([item.text for item in items_of(faq.entries)])
    np.testing.assert_allclose(open_current(root).vectors, expected, atol=1e-5)
    assert len(list_versions(root)) == 2


def test_another_models_vectors_are_not_taken_over(root: Path, build_quickly: Builder, encoder: BiEncoder) -> None:
    """Vectors of another model mean something else: with a new model everything is encoded."""
    other = copy.copy(encoder)
    manifest = msgspec.structs.replace(encoder.bundle.manifest, fingerprint="another")
    other.bundle = replace(encoder.bundle, manifest=manifest)
    built = build_quickly(SMALL, root, encoder=other)
    assert built.encoded == built.manifest.items
    assert built.manifest.model_fingerprint == "another"


def test_damaged_vectors_are_not_taken_over(root: Path, build_quickly: Builder, open_current: Opener) -> None:
    """A damaged version does not stand in the way of a new one, nor does it lend it anything."""
    path = current_folder(root) / "vectors.npy"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    built = build_quickly(SMALL, root)
    assert built.encoded == built.manifest.items
    assert open_current(root).manifest == built.manifest


class Recorder(Reporter):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.total = 0
        self.done = 0

    def step(self, what: str) -> None:
        """See `Reporter.step`."""
        self.steps.append(what)

    def encoding(self, total: int) -> Callable[[int], None]:
        """See `Reporter.encoding`."""
        self.total += total

        def advance(count: int) -> None:
            self.done += count

        return advance


@pytest.mark.usefixtures("quick")
def test_a_build_tells_how_it_goes(encoder: BiEncoder, tmp_path: Path) -> None:
    """Each step is told before it is done, and encoding counts up to what it announced."""
    reporter = Recorder()
    built = build_index(SMALL, encoder, tmp_path / "index", Options(), now=NOW, reporter=reporter)
    assert reporter.steps[0] == f"encoding {built.encoded} of {built.manifest.items} texts"
    assert reporter.steps[-1] == "writing"
    assert reporter.done == reporter.total == built.encoded


def test_a_faq_of_one_entry_is_built(build_quickly: Builder, open_current: Opener, tmp_path: Path) -> None:
    """The smallest FAQ, one question and its answer, becomes an index like any other, with its notes."""
    faq = Faq(header=SMALL.header, entries=(Entry(id="only", question="Why?", answer="Because."),))
    built = build_quickly(faq, tmp_path / "index")
    assert open_current(tmp_path / "index").manifest.items == 2
    assert len(built.manifest.calibration.notes) >= 2


def test_a_faq_of_disabled_entries_is_refused(root: Path, build_quickly: Builder) -> None:
    """Nothing to serve is no index, and what is served stays."""
    before = state(root)
    faq = Faq(header=SMALL.header, entries=tuple(msgspec.structs.replace(e, enabled=False) for e in SMALL.entries))
    with pytest.raises(FaqIndexError, match="every entry of the FAQ is disabled"):
        build_quickly(faq, root)
    assert state(root) == before


def test_a_missing_calibrator_is_told_before_the_work(
    tmp_path: Path, encoder: BiEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without scikit-learn nothing is encoded or written in vain: the sentence says what to install."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sklearn" else find_spec(name))
    reporter = Recorder()
    with pytest.raises(FaqwireError, match=r"install `faqwire\[build\]`"):
        build_index(SMALL, encoder, tmp_path / "index", Options(), now=NOW, reporter=reporter)
    assert reporter.steps == []
    assert not (tmp_path / "index").exists()


def test_a_foreign_folder_is_refused(build_quickly: Builder, tmp_path: Path) -> None:
    """A folder of other files is never written into."""
    (tmp_path / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(FaqIndexError, match="holds other files and is not a FAQ index; choose another place"):
        build_quickly(SMALL, tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "letter.txt"]


@pytest.mark.parametrize("link", [False, True])
def test_a_file_is_refused(build_quickly: Builder, tmp_path: Path, *, link: bool) -> None:
    """A file in the index's place, or a link that leads nowhere, is left alone."""
    place = tmp_path / "index"
    if link:
        place.symlink_to("nowhere")
    else:
        place.write_text("x", encoding="utf-8")
    with pytest.raises(FaqIndexError, match="is a file and not a FAQ index"):
        build_quickly(SMALL, place)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


@pytest.mark.parametrize("step", ["hold_out", "plan_search", "calibrate", "build_trees", "seal"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_build_leaves_no_trace(
    root: Path, build_quickly: Builder, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    """Wherever a build is stopped, no version and no scrap stay behind, and the current one is as it was."""
    before = state(root)

    def stop(*_: object, **__: object) -> IndexManifest:
        raise error("stopped")

    monkeypatch.setattr(build, step, stop)
    with pytest.raises(error, match="stopped"):
        build_quickly(changed(0, answer="Always."), root)
    assert state(root) == before


def test_a_build_whose_encoder_fails_leaves_no_trace(
    root: Path, build_quickly: Builder, encoder: BiEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder that runs out of memory half way harms nothing."""
    before = state(root)

    def fail(*_: object) -> np.ndarray[Any, Any]:
        raise MemoryError("no more")

    broken = copy.copy(encoder)
    monkeypatch.setattr(broken, "run", fail)
    with pytest.raises(MemoryError):
        build_quickly(changed(0, answer="Always."), root, encoder=broken)
    assert state(root) == before


def test_a_folder_that_cannot_be_written_is_named(build_quickly: Builder, tmp_path: Path) -> None:
    """A place below a file cannot be a folder, and the sentence says so."""
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(FaqIndexError, match="cannot be written"):
        build_quickly(SMALL, tmp_path / "file" / "index")
