"""What the tests of `intents` share: a small FAQ with an entry of every sort, and quick builds of it."""

import csv
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import settings

from export.bundle import Bundle
from export.runtime.bi_encoder import BiEncoder
from intents import build
from intents.build import Built, Options, Reporter, build_index
from intents.entries import Entry, Faq, Header
from intents.index import FaqIndex, open_index
from intents.store import current_folder

# How long an example takes depends on the machine, and says nothing about the code.
settings.register_profile("intents", deadline=None)
settings.load_profile("intents")

SALE_BEGINS, SALE_ENDS = date(2026, 7, 1), date(2026, 7, 31)

SMALL = Faq(
    header=Header(name="Small shop"),
    entries=(
        Entry(
            id="opening-hours",
            question="When are you open?",
            answer="We are open from **9 to 18**, Monday to Saturday.",
            phrasings=("opening hours", "what time do you close", "are you open on saturdays", "shop hours today"),
        ),
        Entry(
            id="returns",
            question="How do I return something?",
            answer="Print the label in your account and hand the parcel in.",
            phrasings=("send an item back", "return policy", "i want to give it back", "where is the return label"),
        ),
        Entry(
            id="shipping-cost",
            question="What does shipping cost?",
            answer="Shipping is 4.90, and free from 50.",
            phrasings=("delivery fee", "how much is postage", "do you ship for free", "price of delivery"),
        ),
        Entry(
            id="hello",
            question="Hello",
            answer="Hello! Ask me about orders, shipping, returns and our opening hours.",
            phrasings=("hi there", "good morning", "hey you"),
            kind="smalltalk",
        ),
        Entry(
            id="human",
            question="Can I talk to a person?",
            answer="I am passing you on.",
            phrasings=("speak to a human", "connect me with an agent", "real person please"),
            kind="handoff",
        ),
        Entry(
            id="summer-sale",
            question="Is there a summer sale?",
            answer="Everything is 20 % off in July.",
            phrasings=("summer discount", "july sale", "when do the summer prices start"),
            valid_from=SALE_BEGINS,
            valid_to=SALE_ENDS,
        ),
        Entry(
            id="fax",
            question="What is your fax number?",
            answer="We gave our fax machine away.",
            phrasings=("send you a fax", "fax line"),
            enabled=False,
        ),
    ),
)

Builder = Callable[..., Built]
Opener = Callable[[Path], FaqIndex]


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

    def run(faq: Faq, root: Path, *, now: datetime | None = None, encoder: BiEncoder = encoder) -> Built:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build, "SHIPPED_OUT_OF_SCOPE", few_out_of_scope)
            return build_index(faq, encoder, root, Options(), now=now or datetime.now(UTC), reporter=Reporter())

    return run


@pytest.fixture(scope="session")
def small_root(build_quickly: Builder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small FAQ's index; tests only read it."""
    root = tmp_path_factory.mktemp("small") / "index"
    build_quickly(SMALL, root)
    return root


@pytest.fixture
def root(small_root: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the small FAQ's index, to do with as a test likes."""
    copy = tmp_path / "index"
    shutil.copytree(small_root, copy, symlinks=True)
    yield copy
    shutil.rmtree(copy, ignore_errors=True)


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
