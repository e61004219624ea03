"""The report of an evaluation: one file that needs no other, and in which nobody's text is markup."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from intents.comparison import compare
from intents.evaluate import Judged
from intents.systems import Run, System, Trial
from server.cli.findings import Findings
from server.cli.report import render_report, write_report
from tests.intents.judging import judged

HOSTILE = "<script>alert('&\"')</script>"
SYSTEMS: tuple[System, ...] = ("alone", "confirmer_alone", "cascade", "full_confirmation")


def messages(system: System) -> tuple[Judged, ...]:
    """Twenty of each kind, with confidences that mean something; the confirmer alone decides nothing."""
    decides = system != "confirmer_alone"
    found = []
    for i in range(20):
        right = "a" if i % 4 else "b"
        found += [
            judged("a", "answer" if decides else None, right, confidence=0.5 + i / 50, text=f"{HOSTILE} {i}"),
            judged(None, "answer" if decides and not i else "no_match" if decides else None, "b", confidence=i / 40),
        ]
    return tuple(found)


@pytest.fixture(params=[SYSTEMS, SYSTEMS[:1]], ids=["four systems", "the bi-encoder alone"])
def findings(request: pytest.FixtureRequest) -> Findings:
    """What an evaluation of a FAQ with hostile texts found."""
    systems: tuple[System, ...] = request.param
    trial = Trial({system: Run(messages(system), 0.1) for system in systems}, (Run(messages("cascade"), 0.1),) * 2)
    return Findings(
        title=HOSTILE,
        method={"kind": "messages"},
        notes=(HOSTILE,),
        comparison=compare([trial], 0.3, seed=1),
        versus=None,
        trial=trial,
        questions={"a": HOSTILE, "b": "What is b?"},
        facts={},
    )


class Page(HTMLParser):
    """What an HTML page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See `HTMLParser`."""
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        """See `HTMLParser`."""
        self.words += f"{data} "


def test_the_page_needs_nothing_else(findings: Findings) -> None:
    """No script, no style sheet, no picture and no font comes from elsewhere; plots find their parts by unique ids."""
    text = render_report(findings)
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "image"} & set(page.tags)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"@import|url\((?!#)", text)
    assert page.tags.count("svg") == page.tags.count("figure") == 4


def test_texts_are_texts(findings: Findings) -> None:
    """Whatever FAQ and messages say is shown as it was written, and is not markup."""
    text = render_report(findings)
    assert "<script" not in text
    words = Page(text).words
    assert words.count(HOSTILE) >= 4, "in the title, the notes, a question and examples"
    assert "What is b?" in words
    assert "#010203" not in text, "plots take the page's own colour of text"


def test_confused_pairs_are_shown(findings: Findings) -> None:
    """Each pair stands with how often it is confused, and with examples; an evaluation without any says so."""
    words = " ".join(Page(render_report(findings)).words.split())
    assert re.search(r"a <script>.*?</script> b What is b\? 5 <script>", words)
    assert "out of scope b What is b? 1 text 0.00, answer" in words
    right = Trial({"alone": Run((judged("a", "answer", "a"),), 0.1)})
    none = Findings("FAQ", {}, (), compare([right], 0.3, seed=1), None, right, {}, {})
    assert "There are none." in render_report(none)


def test_the_file_is_written_whole_or_not_at_all(findings: Findings, tmp_path: Path) -> None:
    """A report replaces an older one at once; one that fails leaves the older one, and nothing beside it."""
    path, ordinary = tmp_path / "report.html", tmp_path / "ordinary"
    path.write_text("old", encoding="utf-8")
    ordinary.touch()
    broken = Findings("FAQ", {}, (), findings.comparison, None, Trial({}), {}, {})
    with pytest.raises(KeyError):
        write_report(path, broken)
    assert path.read_text(encoding="utf-8") == "old"
    write_report(path, findings)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert path.stat().st_mode == ordinary.stat().st_mode, "others may read it as they may read any file"
    assert sorted(tmp_path.iterdir()) == [ordinary, path]
