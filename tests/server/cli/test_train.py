"""`faqwire train`: a cross-encoder that is better than the one it began with is written, and nothing else is."""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from export import source
from export.bundle import open_bundle
from export.convert import export_model
from export.errors import AdapterError, FaqwireError, SourceError, TrainingError
from export.learnt import Learnt
from export.sealed import sha256_of
from export.training.checkpoint import NAME
from intents.normalise import normalise
from server.cli import group
from tests.server.cli.site import Site, holding
from tests.server.cli.test_refusals import WITHOUT_TORCH, refuse

TOPICS = ("opening hours", "returning an item", "the cost of delivery", "gift cards")
WAYS = ("what about {}", "tell me about {}", "i have a question on {}", "help with {} please", "any news on {}")
FEWER = ("{} please", "more about {}", "is there {}", "do you know {}")
# `shy` finds nothing answered at first, and `even` says neither yes nor no.
FAST = ("--rate", "0.01", "--layers", "2", "--rank", "4", "--start", "shy")


def write_faq(path: Path, topics: Sequence[str] = TOPICS, ways: Sequence[str] = WAYS + FEWER) -> Path:
    """Write a FAQ with an entry for each topic, and a phrasing for each way to ask."""
    entries = [
        {"id": topic.replace(" ", "-"), "question": f"{topic}?", "answer": f"All on {topic}.", "phrasings": own}
        for topic in topics
        for own in [[way.format(topic) for way in ways]]
    ]
    path.write_text(json.dumps({"entries": entries}), encoding="utf-8")  # YAML as well
    return path


@pytest.fixture
def site(site: Site) -> Site:
    """A site with a FAQ of four entries, and with small cross-encoders that have learnt nothing."""
    from tests.export.toys import make_even  # brings torch

    make_even(site.folder / "even")
    make_even(site.folder / "shy", -3.0)
    write_faq(site.folder / "faq.yaml")
    return site


@pytest.fixture
def here(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The site as this process's working directory, so that torch is imported once for all tests."""
    monkeypatch.chdir(site.folder)
    for name in [name for name in os.environ if name.startswith("FAQWIRE_")]:
        monkeypatch.delenv(name)
    return site


def train(*args: str) -> None:
    """Run `faqwire train` in this process."""
    group(["train", *args], standalone_mode=False)


def refused(error: type[FaqwireError], site: Site, *args: str) -> str:
    """The sentence with which training is refused; it leaves everything as it was."""
    before = site.snapshot()
    with pytest.raises(error) as caught:
        train(*args)
    assert site.snapshot() == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_faq_makes_a_better_adapter(here: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Better on left-out phrasings than what it began with, it is written with what it was made of."""
    (here.folder / "faq_messages.csv").write_text("text,expected\nhours on sunday,nothing-known\n", encoding="utf-8")
    train("faq.yaml", "-o", "var/adapter", *FAST)
    folder = here.folder / "var" / "adapter"
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    before, after = record["before"]["left-out phrasings"], record["after"]["left-out phrasings"]
    assert after["loss"] < before["loss"]
    assert record["start"]["model"] == "shy"
    assert record["recipe"]["rate"] == 0.01
    assert record["files"] == {"faq.yaml": sha256_of(here.folder / "faq.yaml")}, "a single FAQ's neighbour is not read"
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "learnt.npy",
        "training.json",
    }
    learnt = Learnt.read(folder, error=AdapterError)
    own = [normalise(way.format(topic)) for topic in TOPICS for way in WAYS + FEWER]
    left_out = [text for text in own if text not in learnt]
    assert len(left_out) == record["left_out"]["left-out phrasings"]
    assert {path.name for path in folder.parent.iterdir()} == {"adapter", "index", "model"}
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == (
        "adapter in var/adapter; `faqwire export var/adapter -o var/cross-encoder` makes a bundle of it"
    )
    assert out.startswith("left-out phrasings: loss ")
    assert "step 0 of " in err


def test_what_is_not_better_is_not_written(site: Site) -> None:
    """A lesson that does harm ends in a sentence and exit status 1, and what was there is still there."""
    rows = [f"{topic} {way.format('').strip()}," for topic in TOPICS for way in WAYS + FEWER]
    holding("wrong.csv", "\n".join(["text,expected", *rows * 12]))(site.folder)
    before = site.snapshot()
    done = site.run("train", "faq.yaml", "--messages", "wrong.csv", "-o", "adapter", *FAST[:-1], "even")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        "faqwire: the trained model is not better than even on the left-out phrasings, so nothing was written; keep "
        "that one, or train on more phrasings"
    )
    assert site.snapshot() == before


def test_several_faqs_make_an_adapter_that_exports(here: Site) -> None:
    """Of three one is left out whole, each one's messages are read, and the adapter becomes a cross-encoder."""
    for number, topic in enumerate(("trains", "plants", "pottery")):
        write_faq(here.folder / f"{topic}.yaml", [f"{one} of {topic}" for one in TOPICS])
        rows = [f"i wonder about {one} of {topic},{f'{one} of {topic}'.replace(' ', '-')}" for one in TOPICS]
        rows += [f"how tall is the king number {number},"]
        holding(f"{topic}_messages.csv", "\n".join(["text,expected", *rows]))(here.folder)
    train("trains.yaml", "plants.yaml", "pottery.yaml", "-o", "adapter", *FAST)
    record = json.loads((here.folder / "adapter" / "training.json").read_text(encoding="utf-8"))
    assert (record["left_out"], record["left_out_faqs"]) == ({"left-out FAQs": 5}, ["plants.yaml"])
    assert record["messages"] == 2 * (4 * (1 + len(WAYS + FEWER)) + 5)
    assert len(record["files"]) == 6
    bundle = export_model("adapter", Path("bundle"), variants=()).bundle
    assert bundle.manifest.kind == "cross-encoder"
    assert bundle.manifest.source.weights.keys() == {"adapter_model.safetensors", "base/model.safetensors"}
    learnt = open_bundle(Path("bundle"), kind="cross-encoder").learnt()
    asked = [f"i wonder about gift cards of {topic}" for topic in ("trains", "plants", "pottery")]
    assert [text in learnt for text in asked] == [True, False, True]


def test_training_goes_on_after_ctrl_c(here: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Interrupted, it exits with 130 and has written nothing but its checkpoint; begun again, it goes on from there."""
    args = ("faq.yaml", "-o", "adapter", *FAST, "--epochs", "40")
    with here.start("train", *args) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step ") and not line.startswith("step 0 of"):
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert (process.returncode, err.splitlines()[-1]) == (130, "faqwire: interrupted")
    assert (here.folder / ".adapter.training" / NAME).is_file()
    assert not [path for path in here.folder.iterdir() if path.name.startswith("adapter") or ".partial" in path.name]
    train(*args)
    assert "going on after step " in capsys.readouterr().err
    assert (here.folder / "adapter" / "training.json").is_file()
    assert not (here.folder / ".adapter.training").exists()


def test_a_checkpoint_of_another_training_is_refused(here: Site) -> None:
    """What lies in the checkpoint's place and is none is not removed by itself."""
    (here.folder / ".adapter.training").mkdir()
    holding(f".adapter.training/{NAME}", "something")(here.folder)
    sentence = refused(TrainingError, here, "faq.yaml", "-o", "adapter", *FAST)
    assert sentence.endswith(f".adapter.training/{NAME} is damaged; remove its folder to begin anew")


def test_nothing_to_leave_out(here: Site) -> None:
    """A FAQ whose entries have one phrasing each has nothing to judge by."""
    write_faq(here.folder / "faq.yaml", ways=WAYS[:1])
    assert "no messages to learn from, or none to judge by" in refused(
        TrainingError, here, "faq.yaml", "-o", "adapter", *FAST
    )


@pytest.mark.parametrize("output", ["var", "faq.yaml", "faq.yaml/adapter"])
def test_a_place_that_is_taken(here: Site, output: str) -> None:
    """A folder with other things in it, a file, or a place below a file is refused before anything is learnt."""
    assert f"{output} " in refused(AdapterError, here, "faq.yaml", "-o", output, *FAST)


def test_the_confirmer_may_be_missing(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where faqwire comes without its own cross-encoder, and none is named, there is nothing to go on from."""
    monkeypatch.setattr(source, "CONFIRMER_FOLDER", here.folder / "nowhere")
    assert "comes without faqwire/confirmer" in refused(SourceError, here, "faq.yaml", "-o", "adapter")


def test_messages_go_with_a_single_faq(here: Site) -> None:
    """With several it could not be told to which they belong."""
    with pytest.raises(click.UsageError, match="--messages goes with a single FAQ"):
        train("faq.yaml", "faq.yaml", "--messages", "messages.csv", "-o", "adapter")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("nowhere.yaml", "nowhere.yaml: does not exist; name a FAQ file"),
        ("empty.yaml", "empty.yaml: is empty; a FAQ has a list of entries"),
        ("disabled.yaml", "disabled.yaml: has no enabled entry to learn from"),
        ("faq.yaml --messages x.csv", "x.csv: does not exist"),
        ("faq.yaml --messages messages.csv", "messages.csv:2: expected: 'hours' is no entry of the FAQ"),
        ("faq.yaml --start ./nowhere", "there is no folder ./nowhere"),
        ("faq.yaml --start shy --model var/nothing", "var/nothing is not a model bundle"),
    ],
)
def test_refusals(here: Site, args: str, says: str) -> None:
    """What is missing or wrong is named before torch is imported."""
    holding("empty.yaml")(here.folder)
    entry = "{id: a, question: b, answer: c, enabled: false}"
    holding("disabled.yaml", f"entries: [{entry}]")(here.folder)
    assert says in refused(FaqwireError, here, *args.split(), "-o", "adapter")


def test_a_missing_extra_is_named(site: Site) -> None:
    """Without the packages that train, the sentence says what to install."""
    refuse(
        site,
        ["train", "faq.yaml", "-o", "x"],
        r"training needs torch; install `faqwire\[build,export\]`",
        WITHOUT_TORCH,
    )
