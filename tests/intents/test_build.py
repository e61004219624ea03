"""Building an index: what is redone, and what is kept."""

import copy
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from export.bundle import Bundle
from export.runtime.bi_encoder import BiEncoder
from export.runtime.cross_encoder import CrossEncoder, cut_to
from intents.build import Options, build_index, up_to_date
from intents.entries import Entry, Faq
from intents.items import items_of
from intents.store import current_folder, current_manifest, list_versions
from tests.intents.small import SMALL, Builder, Opener, Recorder, changed

NOW = datetime(2026, 11, 23, 8, 15, 0, 123_456, tzinfo=UTC)


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


def test_vectors_are_used_again_only_for_the_same_texts(
    root: Path, build_quickly: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another faqwire made other texts of the same entries, their vectors are not mistaken for these."""
    others = [replace(item, text=item.text.upper()) for item in items_of(SMALL.entries)]
    monkeypatch.setattr("intents.build.items_of", lambda _: others)
    assert build_quickly(SMALL, root).encoded == len(others)


def test_seasonal_entries_make_room_for_the_others(build_quickly: Builder, tmp_path: Path) -> None:
    """What is valid only at times cannot crowd out the rest on other days: so many more items are retrieved."""
    seasonal = Entry(
        id="advent",
        question="When is the advent market?",
        answer="In December.",
        phrasings=tuple(f"advent market on day {day}" for day in range(150)),
        valid_to=date(2020, 1, 1),
    )
    market = Entry(id="market", question="Is there a market in summer?", answer="Every Saturday in July.")
    root = tmp_path / "index"
    plan = build_quickly(Faq(header=SMALL.header, entries=(seasonal, market)), root).manifest.plan
    assert plan.neighbours == 100 + 54  # as many as there are: 152 of the one and 2 of the other


def test_a_build_with_a_cross_encoder_confirms(
    build_quickly: Builder, open_current: Opener, cross_encoder: CrossEncoder, tmp_path: Path
) -> None:
    """The index says with which cross-encoder, how long pairs are, how many are read, and what to expect of it."""
    reporter = Recorder()
    built = build_quickly(
        SMALL, tmp_path / "index", cross_encoder=cross_encoder, options=Options(candidates=3), reporter=reporter
    )
    index = open_current(tmp_path / "index")
    confirmer, confirmed = index.confirmer, built.manifest.confirmed
    assert confirmer is not None
    assert confirmed is not None
    assert confirmer == built.manifest.confirmer
    assert confirmer.fingerprint == cross_encoder.bundle.manifest.fingerprint
    assert (confirmer.pair_tokens, confirmer.candidates) == (48, 3)
    assert confirmer.is_monotone()
    assert confirmed.messages > 0
    assert 0 < confirmed.pairs <= 3 * confirmed.messages
    assert f"reading {confirmed.pairs} pairs with the cross-encoder" in reporter.steps
    assert reporter.done == reporter.total == built.encoded + confirmed.pairs


def test_a_build_without_a_cross_encoder_confirms_nothing(small_root: Path) -> None:
    """Nothing is confirmed, and nothing is said of it."""
    manifest = current_manifest(small_root)
    assert manifest is not None
    assert (manifest.confirmer, manifest.confirmed) == (None, None)


@pytest.mark.usefixtures("quick")
def test_a_cross_encoder_asks_for_a_build(
    root: Path, build_quickly: Builder, bundle: Bundle, cross_encoder: CrossEncoder
) -> None:
    """A cross-encoder that is added, changed, cut otherwise or taken away, or another number of candidates, is new."""
    model, reader = bundle.manifest.fingerprint, cross_encoder.bundle
    assert up_to_date(root, SMALL, model, Options(), reader) is None
    built = build_quickly(SMALL, root, cross_encoder=cross_encoder)
    assert built.encoded == 0, "the bi-encoder's vectors are the same"
    assert up_to_date(root, SMALL, model, Options(), reader) == built.manifest
    other = replace(reader, manifest=msgspec.structs.replace(reader.manifest, fingerprint="other"))
    assert up_to_date(root, SMALL, model, Options(), other) is None
    assert up_to_date(root, SMALL, model, Options(), cut_to(reader, 32)) is None
    assert up_to_date(root, SMALL, model, Options(candidates=3), reader) is None
    assert up_to_date(root, SMALL, model, Options()) is None


@pytest.mark.usefixtures("quick")
def test_without_a_cross_encoder_candidates_do_not_matter(root: Path, bundle: Bundle) -> None:
    """How many candidates would be read changes nothing where none is."""
    assert up_to_date(root, SMALL, bundle.manifest.fingerprint, Options(candidates=3)) is not None


@pytest.mark.parametrize("fields", [{"candidates": 0}, {"candidates": 11}, {"target_precision": 1.0}])
def test_options_out_of_range_are_a_mistake_of_the_caller(fields: dict[str, float]) -> None:
    """Shares are between 0 and 1, and only candidates that are kept can be read."""
    with pytest.raises(ValueError, match="Options"):
        Options(**fields)  # type: ignore[arg-type]
