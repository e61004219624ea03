"""Opening an index: whole and of the right model, or refused with a sentence."""

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest

from export.bundle import Bundle
from export.sealed import seal
from intents.candidates import Candidate
from intents.entries import Entry, Faq, Header
from intents.errors import FaqIndexError
from intents.index import ANNOY, FAQ, HEADS, LEXICON, OUT_OF_SCOPE, OWNERS, VECTORS, FaqIndex, open_index, phrasings_of
from intents.items import items_of
from intents.manifest import FORMAT, MANIFEST, IndexManifest, read_index_manifest
from intents.search import AnnoySearch, ExactSearch
from intents.store import current_folder
from tests.intents.small import CONFIRMER, SALE_BEGINS, SALE_ENDS, SMALL, Opener, confirming

FILES = (FAQ, VECTORS, OWNERS, HEADS, *LEXICON.values(), OUT_OF_SCOPE, ANNOY)
DAY = timedelta(days=1)


def reseal(root: Path, change: Callable[[Path], None] | None = None, **fields: object) -> None:
    """Change a version and seal it again, as a faqwire with a fault might have written it."""
    folder = current_folder(root)
    manifest = read_index_manifest(folder, root)
    if change is not None:
        change(folder)
    seal(folder, msgspec.structs.replace(manifest, **fields), MANIFEST)


def test_the_manifest_names_every_file(small_index: FaqIndex, small_root: Path) -> None:
    """Every file of an index is under the seal."""
    assert set(small_index.manifest.files) == set(FILES)
    assert {path.name for path in current_folder(small_root).iterdir()} == {*FILES, MANIFEST}


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("where", [0.0, 0.5, 0.999])
def test_one_changed_byte_is_refused(root: Path, open_current: Opener, name: str, where: float) -> None:
    """A byte that changed in any file is found before anything is served, and the file is named with what to do."""
    path = current_folder(root) / name
    data = bytearray(path.read_bytes())
    position = int(where * len(data))
    data[position] ^= 0x01
    path.write_bytes(data)
    with pytest.raises(FaqIndexError) as caught:
        open_current(root)
    assert str(path) in str(caught.value)
    assert f"build it again with `faqwire build FAQ -o {root}`" in str(caught.value)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("length", [0, 1, -1])
def test_a_truncated_file_is_refused(root: Path, open_current: Opener, name: str, length: int) -> None:
    """A file that is cut short is found, wherever it was cut."""
    path = current_folder(root) / name
    # The manifest ends in a line break that means nothing.
    path.write_bytes(path.read_bytes().rstrip()[:length])
    with pytest.raises(FaqIndexError, match=f"{name} is damaged"):
        open_current(root)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_refused(root: Path, open_current: Opener, name: str) -> None:
    """A file that is gone is named."""
    (current_folder(root) / name).unlink()
    with pytest.raises(FaqIndexError, match=name):
        open_current(root)


def test_a_newer_format_is_refused(root: Path, open_current: Opener) -> None:
    """An index of a later faqwire is not guessed at: upgrade, or build it again."""
    reseal(root, format=FORMAT + 1)
    with pytest.raises(FaqIndexError, match=f"has format {FORMAT + 1} and this faqwire reads up to {FORMAT}: upgrade"):
        open_current(root)


def test_an_older_format_is_refused(root: Path, open_current: Opener) -> None:
    """An index of an earlier faqwire scored otherwise: it is built again, and not called damaged."""
    reseal(root, format=FORMAT - 1)
    with pytest.raises(FaqIndexError, match=f"has format {FORMAT - 1}, which this faqwire does not read any more"):
        open_current(root)


def test_another_models_index_is_refused(small_root: Path, tmp_path: Path) -> None:
    """An index may only be searched with the model that it was built with; the sentence says what to run."""
    with pytest.raises(FaqIndexError) as caught:
        open_index(current_folder(small_root), small_root, model_fingerprint="another", model_folder=tmp_path)
    assert "was built with another model" in str(caught.value)
    assert f"`faqwire build FAQ -o {small_root} --model {tmp_path}`" in str(caught.value)


@pytest.mark.parametrize("fields", [{"items": 1}, {"dimension": 8}])
def test_an_index_that_contradicts_itself_is_refused(root: Path, open_current: Opener, fields: dict[str, int]) -> None:
    """Even under an unbroken seal, files that do not fit each other are not served."""
    reseal(root, None, **fields)
    with pytest.raises(FaqIndexError, match=r"inconsistent|cannot be read"):
        open_current(root)


def test_a_confirmer_that_could_harm_is_refused(root: Path, open_current: Opener) -> None:
    """Weights that would let a decision weaken when a logit rises are not served."""
    joint = msgspec.structs.replace(CONFIRMER.joint, logit=-1.0)
    reseal(root, confirmer=msgspec.structs.replace(CONFIRMER, joint=joint))
    with pytest.raises(FaqIndexError, match="inconsistent"):
        open_current(root)


def test_a_lexicon_that_does_not_fit_is_refused(root: Path, open_current: Opener) -> None:
    """Terms of other items are not searched."""

    def shorten(folder: Path) -> None:
        path = folder / LEXICON["starts"]
        np.save(path, np.load(path)[:-1], allow_pickle=False)

    reseal(root, shorten)
    with pytest.raises(FaqIndexError, match="inconsistent"):
        open_current(root)


def test_heads_that_do_not_fit_are_refused(root: Path, open_current: Opener) -> None:
    """Every entry has a head as long as a vector, and a bias."""

    def change(folder: Path) -> None:
        np.save(folder / HEADS, np.load(folder / HEADS)[:, :-1])

    reseal(root, change)
    with pytest.raises(FaqIndexError, match="inconsistent"):
        open_current(root)


def test_items_out_of_order_are_refused(root: Path, open_current: Opener) -> None:
    """Items stand entry by entry: their texts are found by their places."""

    def change(folder: Path) -> None:
        np.save(folder / OWNERS, np.load(folder / OWNERS)[::-1].copy())

    reseal(root, change)
    with pytest.raises(FaqIndexError, match="inconsistent"):
        open_current(root)


@pytest.mark.parametrize("name", [FAQ, VECTORS, OWNERS, HEADS])
def test_a_file_of_another_kind_is_refused(root: Path, open_current: Opener, name: str) -> None:
    """Even under an unbroken seal, a file that is not what its name says is a sentence, not a crash."""

    def change(folder: Path) -> None:
        (folder / name).write_bytes(b"nonsense")

    reseal(root, change)
    with pytest.raises(FaqIndexError, match="cannot be read"):
        open_current(root)


def test_a_pickle_in_an_array_is_never_loaded(root: Path, open_current: Opener) -> None:
    """Arrays of objects could run code when they are loaded: they are refused."""

    def change(folder: Path) -> None:
        np.save(folder / OWNERS, np.array([{}], dtype=object), allow_pickle=True)

    reseal(root, change)
    with pytest.raises(FaqIndexError, match="cannot be read"):
        open_current(root)


def test_a_folder_of_something_else_is_no_index(tmp_path: Path, bundle: Bundle) -> None:
    """A folder without a manifest is said to be no index."""
    with pytest.raises(FaqIndexError, match=r"is not a FAQ index: it has no manifest\.json"):
        open_index(tmp_path, tmp_path, model_fingerprint="x", model_folder=bundle.folder)


def test_vectors_are_mapped_and_not_copied(small_index: FaqIndex) -> None:
    """Vectors stay in the file, which all processes share; nobody can write into them."""
    assert isinstance(small_index.vectors, np.memmap)
    assert not small_index.vectors.flags.writeable


def test_entries_are_found_by_id(small_index: FaqIndex) -> None:
    """An entry is found by its id, also a disabled one; an unknown id is None."""
    assert small_index.entry_by_id("returns") == SMALL.entries[1]
    assert small_index.entry_by_id("fax") == SMALL.entries[6]
    assert small_index.entry_by_id("nothing") is None


@pytest.mark.parametrize(
    ("text", "day", "entry"),
    [
        ("when are you open", SALE_BEGINS, 0),
        ("opening hours", SALE_BEGINS, 0),
        ("Opening hours", SALE_BEGINS, None),
        ("something else", SALE_BEGINS, None),
        ("july sale", SALE_BEGINS, 5),
        ("july sale", SALE_ENDS, 5),
        ("july sale", SALE_BEGINS - DAY, None),
        ("july sale", SALE_ENDS + DAY, None),
        ("fax line", SALE_BEGINS, None),
    ],
)
def test_phrasings_lead_to_valid_entries(small_index: FaqIndex, text: str, day: date, entry: int | None) -> None:
    """A normalised phrasing leads to its entry while that is enabled and valid."""
    assert small_index.entry_of(text, day) == entry


def test_the_mask_of_a_day_leaves_out_what_is_not_valid(small_index: FaqIndex) -> None:
    """Entries outside of their days are masked; while all are valid there is no mask; days may come in any order."""
    out_of_season = [True] * 5 + [False, True]
    for day, expected in (
        (SALE_ENDS + DAY, out_of_season),
        (SALE_ENDS, None),
        (SALE_BEGINS - DAY, out_of_season),
        (SALE_BEGINS, None),
        (SALE_BEGINS, None),
    ):
        mask = small_index.allowed_on(day)
        assert (None if mask is None else mask.tolist()) == expected
    assert len(small_index._days) == 1  # a server that runs for years keeps one


def test_items_have_their_texts(small_index: FaqIndex) -> None:
    """The phrasing at every item's position is its text; a question joined with its answer is no phrasing."""
    for position, item in enumerate(items_of(SMALL.entries)):
        assert small_index.phrasing_of(position) == (item.text if item.role == "phrasing" else None)


@pytest.mark.parametrize(
    ("entry", "item", "text"),
    [
        (1, "return policy", "How do I return something? | return policy | Print the label in your account and hand"),
        (1, "How do I return something?", "How do I return something? | Print the label in your account and hand"),
        (3, "good morning", "Hello | good morning"),
        (4, "speak to a human", "Can I talk to a person? | speak to a human"),
        (0, "opening hours", "When are you open? | opening hours | We are open from 9 to 18, Monday to Saturday."),
    ],
)
def test_a_candidate_as_text(small_index: FaqIndex, entry: int, item: str, text: str) -> None:
    """The cross-encoder is shown question, best phrasing and the answer's words, where these say what it is about."""
    position = [one.text for one in items_of(SMALL.entries)].index(item)
    for _ in range(2):
        assert small_index.rendered(Candidate(entry, 0.5, 0.1, position, 0.5)).startswith(text)


def test_a_candidate_found_by_its_answer_as_text(small_index: FaqIndex) -> None:
    """Where the nearest item is the answer's, no phrasing is shown beside the question."""
    items = items_of(SMALL.entries)
    position = next(i for i, item in enumerate(items) if item.role == "answer" and item.entry == 2)
    text = "What does shipping cost? | Shipping is 4.90, and free from 50."
    assert small_index.rendered(Candidate(2, 0.5, 0.1, position, 0.5)) == text


def test_an_index_has_no_confirmer_unless_built_with_one(small_index: FaqIndex) -> None:
    """What was built without a cross-encoder says so, and what was built with one says with which."""
    assert small_index.confirmer is None
    assert confirming(small_index).confirmer == CONFIRMER


def test_the_search_is_the_one_asked_for(small_index: FaqIndex) -> None:
    """Trees or an exact scan, as the setting says."""
    assert isinstance(small_index.search("annoy"), AnnoySearch)
    assert isinstance(small_index.search("exact"), ExactSearch)


def test_phrasings_are_of_enabled_entries() -> None:
    """The question and every phrasing lead to the entry, normalised; disabled entries have none."""
    entries = (
        Entry(id="a", question="Where?", answer="x", phrasings=("HERE!",), enabled=False),
        Entry(id="b", question="When?", answer="x", phrasings=("NOW!",)),
    )
    assert phrasings_of(Faq(header=Header(), entries=entries)) == {"when": 1, "now": 1}


def test_the_manifest_survives_its_file(small_index: FaqIndex, small_root: Path) -> None:
    """What is read back is what was written, the policy to the last bit."""
    manifest = read_index_manifest(current_folder(small_root), small_root)
    assert isinstance(manifest, IndexManifest)
    assert manifest == small_index.manifest
    assert small_index.policy == manifest.policy
