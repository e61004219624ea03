"""What the tests of `intents` share: quick builds, and the index of a small FAQ with an entry of every sort."""

import csv
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from export.bundle import Bundle
from export.convert import export_model
from export.runtime.bi_encoder import BiEncoder
from export.runtime.cross_encoder import CrossEncoder
from export.runtime.session import CPU, Device
from intents import build
from intents.build import Built, Options, Reporter, build_index
from intents.entries import Faq
from intents.index import FaqIndex, open_index
from intents.store import current_folder
from tests.intents.small import SMALL, Builder, Opener


@pytest.fixture(scope="session")
def few_out_of_scope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every twentieth of the shipped out-of-scope messages: encoding all takes most of a small build's time."""
    path = tmp_path_factory.mktemp("data") / "out_of_scope.csv"
    with build.SHIPPED_OUT_OF_SCOPE.open(encoding="utf-8", newline="") as source:
        header, *rows = csv.reader(source)
    with path.open("w", encoding="utf-8", newline="") as target:
        csv.writer(target).writerows([header, *rows[::20]])
    return path


@pytest.fixture
def quick(few_out_of_scope: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let builds calibrate on few out-of-scope messages."""
    monkeypatch.setattr(build, "SHIPPED_OUT_OF_SCOPE", few_out_of_scope)


@pytest.fixture(scope="session")
def build_quickly(encoder: BiEncoder, few_out_of_scope: Path) -> Builder:
    """Build a FAQ with few out-of-scope messages."""

    def run(
        faq: Faq,
        root: Path,
        *,
        now: datetime | None = None,
        encoder: BiEncoder = encoder,
        options: Options | None = None,
        reporter: Reporter | None = None,
        cross_encoder: CrossEncoder | None = None,
    ) -> Built:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build, "SHIPPED_OUT_OF_SCOPE", few_out_of_scope)
            return build_index(
                faq,
                encoder,
                root,
                options or Options(),
                now=now or datetime.now(UTC),
                reporter=reporter or Reporter(),
                cross_encoder=cross_encoder,
            )

    return run


@pytest.fixture(scope="session")
def small_root(build_quickly: Builder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small FAQ's index; tests only read it."""
    root = tmp_path_factory.mktemp("small") / "index"
    build_quickly(SMALL, root)
    return root


@pytest.fixture
def root(small_root: Path, tmp_path: Path) -> Path:
    """A copy of the small FAQ's index, to do with as a test likes."""
    return shutil.copytree(small_root, tmp_path / "index", symlinks=True)


@pytest.fixture(scope="session")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> CrossEncoder:
    """A small random cross-encoder, whose pairs have at most 48 tokens."""
    from tests.export.models import make_model  # brings torch

    folder = tmp_path_factory.mktemp("cross")
    model = make_model(folder / "model", labels=1)
    bundle = export_model(str(model), folder / "bundle", variants=()).bundle
    return CrossEncoder(bundle, "fp32", Device(CPU), max_tokens=48)


@pytest.fixture(scope="session")
def open_current(bundle: Bundle) -> Opener:
    """Open the current version of an index."""

    def run(root: Path) -> FaqIndex:
        fingerprint = bundle.manifest.fingerprint
        return open_index(current_folder(root), root, model_fingerprint=fingerprint, model_folder=bundle.folder)

    return run


@pytest.fixture(scope="session")
def small_index(small_root: Path, open_current: Opener) -> FaqIndex:
    """The small FAQ's index, opened."""
    return open_current(small_root)
