"""Builds that are refused, fail or are stopped: nothing is written over, and nothing is left behind."""

import copy
import importlib.util
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from export.errors import FaqwireError
from export.runtime.bi_encoder import BiEncoder
from intents import build
from intents.build import Options, build_index
from intents.entries import Faq
from intents.errors import FaqIndexError
from intents.manifest import IndexManifest
from tests.intents.small import SMALL, Builder, Recorder, changed

NOW = datetime(2026, 11, 23, 8, 15, 0, 123_456, tzinfo=UTC)


def state(root: Path) -> dict[str, Any]:
    """Everything that lies in a folder: bytes of files, targets of links."""

    def of(path: Path) -> Path | bytes | None:
        if path.is_symlink():
            return path.readlink()
        return path.read_bytes() if path.is_file() else None

    return {str(path.relative_to(root)): of(path) for path in root.rglob("*")}


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


@pytest.mark.parametrize("step", ["hold_out", "plan_search", "calibrate_index", "build_trees", "seal"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_build_leaves_no_trace(
    root: Path, build_quickly: Builder, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    """Wherever a build is stopped, no version and no scrap stay behind, and the current one is as it was."""
    before = state(root)

    def stop(*_: object, **__: object) -> IndexManifest:
        raise error("stopped")

    monkeypatch.setattr(build, step, stop)
    with pytest.raises((error, FaqIndexError), match="stopped"):  # what the disk refuses is said of the index
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
