"""What is assumed of FAQs that are too small to be calibrated on themselves."""

from pathlib import Path

import msgspec
import pytest

from export.bundle import Bundle
from export.runtime.cross_encoder import CrossEncoder
from intents import calibration as calibrating
from intents.build import Options
from intents.holdout import FEW
from intents.prior import ASSUMED, Case, Prior, read_prior
from tests.intents.small import SMALL, Builder

PRIOR = read_prior()


def test_the_shipped_prior_is_of_the_default_model(bundle: Bundle) -> None:
    """It was measured with the bi-encoder that faqwire exports by default, on FAQs with messages of every kind."""
    assert PRIOR.model_fingerprint == bundle.manifest.fingerprint
    assert PRIOR.faqs >= 8
    assert min(len(PRIOR.in_scope), len(PRIOR.near), len(PRIOR.far)) >= 100


@pytest.mark.parametrize("kind", ["in_scope", "near", "far"])
def test_cases_are_ranked_and_right_or_not(kind: str) -> None:
    """Scores and evidence stand best first; a case in scope has a right candidate or misses it, others have none."""
    cases: tuple[Case, ...] = getattr(PRIOR, kind)
    for case in cases:
        assert list(case.scores) == sorted(case.scores, reverse=True)
        assert list(case.evidence) == sorted(case.evidence, reverse=True)
        assert len(case.evidence) == len(case.scores)
        assert 1 <= len(case.logits) <= len(case.scores)
        assert (case.right is not None) == (kind == "in_scope")
        assert case.right is None or -1 <= case.right < len(case.scores)


def test_its_messages_have_candidates_with_margins() -> None:
    """The first candidate's margin is its lead, the others' is what they lack; ranks stand in for entries."""
    case = Case((0.9, 0.7, 0.4), (0.8, 0.6, 0.5), (1.0, -1.0), 1)
    prior = msgspec.structs.replace(PRIOR, in_scope=(case,), near=(), far=())
    (posed,) = prior.messages(()).in_scope
    assert [c.entry for c in posed.candidates] == [0, 1, 2]
    assert [c.margin for c in posed.candidates] == pytest.approx([0.2, -0.2, -0.5])
    assert [c.evidence for c in posed.candidates] == [0.8, 0.6, 0.5]
    assert posed.expected == 1
    assert prior.logits(1) == [[1.0]]
    assert len(prior.entries) == 3


def test_a_small_faq_is_calibrated_by_it(build_quickly: Builder, tmp_path: Path) -> None:
    """Where too few phrasings can be held out, thresholds come from the prior, and a note says so."""
    calibration = build_quickly(SMALL, tmp_path / "index").manifest.calibration
    assert (calibration.in_scope, calibration.near) == (len(PRIOR.in_scope), len(PRIOR.near))
    assert ASSUMED.format(faqs=PRIOR.faqs) in calibration.notes
    assert calibration.target_precision == Options().target_precision == 0.9
    assert calibration.precision is not None
    assert calibration.precision >= 0.95, "what held for other FAQs holds less for this one"


def test_another_models_small_faq_is_calibrated_on_itself(
    build_quickly: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores of another bi-encoder say nothing: the FAQ's own questions and answers have to do, and a note says so."""
    monkeypatch.setattr(calibrating, "read_prior", lambda: msgspec.structs.replace(PRIOR, model_fingerprint="another"))
    manifest = build_quickly(SMALL, tmp_path / "index").manifest
    assert manifest.calibration.in_scope < 100
    assert FEW in manifest.calibration.notes


def test_its_logits_are_those_of_one_cross_encoder(
    build_quickly: Builder, cross_encoder: CrossEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the cross-encoder that gave them nothing has to be read; any other one reads the FAQ's own messages."""
    manifest = cross_encoder.bundle.manifest

    def ours() -> Prior:
        return msgspec.structs.replace(
            PRIOR, confirmer_fingerprint=manifest.fingerprint, pair_tokens=cross_encoder.max_tokens
        )

    options = Options(candidates=3)
    read = build_quickly(SMALL, tmp_path / "own", cross_encoder=cross_encoder, options=options).manifest.confirmed
    monkeypatch.setattr(calibrating, "read_prior", ours)
    assumed = build_quickly(SMALL, tmp_path / "prior", cross_encoder=cross_encoder, options=options).manifest.confirmed
    assert read is not None
    assert assumed is not None
    assert (assumed.pairs, assumed.messages) == (0, len(PRIOR.in_scope) + len(PRIOR.near) + len(PRIOR.far))
    assert read.pairs > 0
