"""The FAQs that the shipped cross-encoder is trained on keep the form that `training/README.md` says they have."""

from collections import Counter
from pathlib import Path

import pytest

from intents.formats import load_faq
from intents.labelled import read_labelled
from intents.normalise import normalise

TRAINING = Path(__file__).parents[1] / "training"
FOLDERS = (TRAINING / "faqs", TRAINING / "unseen")
FAQS = [path for folder in FOLDERS for path in sorted(folder.glob("*.yaml"))]
ENTRIES, PHRASINGS, UNANSWERED = 24, 7, 20


def test_there_are_as_many_as_is_said() -> None:
    """Every FAQ has its messages beside it, and nothing else lies there; none is both learnt from and measured on."""
    names = [name for path in FAQS for name in (path.name, f"{path.stem}_messages.csv")]
    assert sorted(path.name for folder in FOLDERS for path in folder.iterdir()) == sorted(names)
    assert len(set(names)) == len(names)
    readme = (TRAINING / "README.md").read_text(encoding="utf-8")
    for folder in FOLDERS:
        assert f"`{folder.name}/`, {len(list(folder.glob('*.yaml')))} FAQs" in readme


@pytest.mark.parametrize("path", FAQS, ids=lambda path: path.stem)
def test_a_faq_is_well_formed(path: Path) -> None:
    """24 entries of 7 distinct phrasings, a message to each of them, and 20 that it does not answer."""
    loaded = load_faq(path)
    faq = loaded.faq
    assert not loaded.left_out
    assert len(faq.entries) == ENTRIES
    assert faq.header.name != "FAQ"
    known = set()
    for entry in faq.entries:
        ways = {normalise(text) for text in (entry.question, *entry.phrasings)}
        assert (entry.enabled, entry.kind, len(entry.phrasings), len(ways)) == (True, "faq", PHRASINGS, 1 + PHRASINGS)
        known |= ways
    messages, left_out = read_labelled(path.with_name(f"{path.stem}_messages.csv"), {entry.id for entry in faq.entries})
    assert not left_out
    assert Counter(one.expected for one in messages) == {None: UNANSWERED} | {entry.id: 1 for entry in faq.entries}
    texts = [normalise(one.text) for one in messages]
    assert len(set(texts)) == len(texts)
    assert not known.intersection(texts), "a message that equals a phrasing is read by no model"
