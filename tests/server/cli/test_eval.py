"""Guards `faqwire eval` as a process: by messages, by folds, by a few phrasings, and beside another index."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from intents.manifest import read_index_manifest
from intents.store import current_folder
from tests.intents.small import CONFIRMER
from tests.server.cli.site import Site, add_version, holding

LABELLED = ("eval", "--faq", "faq.yaml", "--messages", "messages.csv")
SAMPLE_MESSAGES = Path(__file__).parents[3] / "intents" / "samples" / "shop_messages.csv"
FIGURES = {
    *("messages", "in_scope", "out_of_scope", "accuracy@1", "accuracy@3", "mrr", "auroc", "answered", "precision"),
    *("reweighted_precision", "clarified", "clarify_hit", "out_of_scope_recall", "overall_accuracy", "mcc"),
    *("calibration_error", "reweighted_calibration_error", "risk_coverage_area", "share_confirmed", "pairs"),
    *("milliseconds", "search_agreement", "confirmations"),
}


def evaluate(site: Site, *args: str) -> dict[str, Any]:
    """The JSON of an evaluation that succeeds, and leaves nothing behind."""
    before = site.snapshot()
    done = site.run(*args, "--json")
    assert done.returncode == 0, done.stderr
    assert site.snapshot() == before
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_by_messages(site: Site) -> None:
    """The figures of labelled messages come as JSON under the names that scripts rely on; nothing is left behind.

    A CSV of texts and intents is a FAQ too: rows that cannot be used are named and left out.
    """
    rows = "text,intent\nopening hours,hours\nwhen do you open,hours\nsend it back,returns\n,returns\nhi,oos\n"
    holding("intents.csv", rows)(site.folder)
    holding("messages.csv", "text,intent\nwhen do you open?,hours\nsend this back,returns\nrain?,oos\nfog?,\n")(
        site.folder
    )
    before = site.snapshot()
    done = site.run("eval", "--faq", "intents.csv", "--messages", "messages.csv", "--search", "exact", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[:2] == [
        "left out: intents.csv:5: text: is empty; the row is left out",
        "left out: intents.csv:6: intent: is out of scope; the row is left out",
    ]
    report = json.loads(done.stdout)
    assert set(report) >= FIGURES | {
        *("faq", "messages_file", "model", "variant", "provider", "search", "plan", "calibration", "threads"),
    }
    assert (report["cascade"], report["confirmer"], report["confirmed"]) == (None, None, None)
    assert (report["confirmer_alone"], report["full_confirmation"], report["against"]) == (None, None, None)
    assert (report["messages"], report["in_scope"], report["out_of_scope"]) == (4, 2, 2)
    assert (report["accuracy@1"], report["accuracy@3"], report["mrr"]) == (1.0, 1.0, 1.0)
    assert (report["faq"], report["search"], report["method"]["kind"]) == ("intents.csv", "exact", "messages")
    assert report["milliseconds"] > 0
    assert site.snapshot() == before


def test_systems_side_by_side(site: Site, cross_encoder: Path) -> None:
    """With a cross-encoder four systems are measured on the same messages, as a table and in an HTML file."""
    args = (*LABELLED, "--cross-encoder", "var/cross", "--report", "report.html")
    done = site.run(*args, "--json")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^reading [\d,]+ pairs with the cross-encoder$", done.stderr, re.MULTILINE)
    report = json.loads(done.stdout)
    systems = [report[name] for name in ("confirmer_alone", "cascade", "full_confirmation")]
    assert all(set(system) == FIGURES for system in systems)
    assert [sum(one["confirmations"].values()) for one in (report, *systems)] == [3] * 4
    # One of the messages equals a phrasing, and nothing reads that.
    assert (report["share_confirmed"], systems[2]["share_confirmed"]) == (0, pytest.approx(2 / 3))
    assert 0 <= systems[1]["share_confirmed"] <= 2 / 3
    assert (systems[0]["precision"], systems[0]["accuracy@1"] is None) == (None, False)
    assert report["milliseconds"] <= systems[1]["milliseconds"] <= systems[2]["milliseconds"], (
        "who reads more takes more"
    )
    assert set(report["differences"]) == set(report["kept_gain"]) == {"accuracy@1", "auroc"}
    assert [depth["candidates"] for depth in report["depths"]] == [1, 2], "there are two entries"
    assert (report["confirmer"]["model"], report["confirmer"]["pair_tokens"]) == ("tiny-cross", 64)
    assert report["confirmed"]["messages"] > 0
    assert report["cross_encoder_variant"] in {"int8", "fp32"}
    page = (site.folder / "report.html").read_text("utf-8")
    assert all(title in page for title in ("bi-encoder alone", "confirmer alone", "cascade", "full confirmation"))
    assert not [path for path in site.folder.iterdir() if path.name.endswith(".partial")]
    table = site.run(*args)
    assert re.search(r"accuracy@1 +(│ \d\.\d{4} +){4}│", table.stdout)
    assert re.search(r"not_needed +│ 1 +│ 1 +│ \d +│ 1 +│", table.stdout)
    assert "2 in-scope messages, 1 out-of-scope messages" in table.stdout
    assert "\ncascade over bi-encoder alone, accuracy@1: " in table.stdout


def test_by_folds(site: Site) -> None:
    """Without messages the FAQ's own phrasings are asked, with and without their entries, and the shipped messages."""
    report = evaluate(site, "eval", "--faq", "faq.yaml", "--folds", "2", "--search", "exact")
    method = report["method"]
    assert (method["kind"], method["folds"], method["in_scope"], method["near"]) == ("folds", 2, 6, 6)
    assert method["far"] > 1000
    assert report["in_scope"] == 6
    assert report["out_of_scope"] == method["near"] + method["far"]
    assert (report["messages_file"], report["plan"], report["calibration"]) == (None, None, None)


def test_by_a_few_phrasings(site: Site) -> None:
    """With few phrasings of each entry figures are means over draws, with their deviations; the seed decides."""
    args = (*LABELLED, "--shots", "1", "--draws", "2", "--seed", "5")
    report = evaluate(site, *args)
    assert report["method"] == {"kind": "shots", "shots": 1, "draws": 2, "seed": 5, "out_of_scope_share": 0.3}
    assert report["messages"] == 3
    assert set(report["deviations"]) == {"alone"}
    assert report["deviations"]["alone"]["search_agreement"] == 0
    assert report["deviations"]["alone"]["milliseconds"] > 0


@pytest.fixture
def silent(site: Site) -> str:
    """A version of the index that answers nothing but phrasings, and is not current."""
    policy = read_index_manifest(current_folder(site.index), site.index).policy
    quiet = msgspec.structs.replace(policy, answer_at=1.01, clarify_at=1.01)
    return str(add_version(site, "silent", policy=quiet).relative_to(site.folder))


def test_an_index_that_is_worse_fails(site: Site, silent: str) -> None:
    """An index is evaluated as it is; exit status 1 and a sentence say that another one is better, and in what."""
    args = ("eval", "--index", silent, "--messages", str(SAMPLE_MESSAGES), "--against", "var/index")
    before = site.snapshot()
    done = site.run(*args, "--json")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("faqwire: this is worse than var/index in overall accuracy (-0.")
    against = json.loads(done.stdout)["against"]
    assert (against["against"], against["regressions"]) == ("var/index", ["overall_accuracy"])
    assert against["differences"]["accuracy@1"] == {"difference": 0, "low": 0, "high": 0}
    assert site.snapshot() == before


def test_an_index_that_is_no_worse_passes(site: Site, silent: str) -> None:
    """Exit status 0 where the other one is not better, and the table has a column for it."""
    args = ("eval", "--index", "var/index", "--messages", str(SAMPLE_MESSAGES), "--against", silent)
    done = site.run(*args)
    assert done.returncode == 0, done.stderr
    assert re.search(r"accuracy@1 +(│ \d\.\d{4} +){2}│", done.stdout)
    assert re.search(rf"^over {re.escape(silent)}, overall accuracy: \+0\.", done.stdout, re.MULTILINE)


def test_a_cross_encoder_that_an_index_does_not_know(site: Site, cross_encoder: Path) -> None:
    """Another one than the index was built with is refused; an index built without any is evaluated without."""
    args = ("--messages", str(SAMPLE_MESSAGES), "--cross-encoder", "var/cross")
    other = str(add_version(site, "other", confirmer=CONFIRMER).relative_to(site.folder))
    refused = site.run("eval", "--index", other, *args)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(
        f"faqwire: {other} was built with another cross-encoder (a cross-encoder) than the"
    )
    done = site.run("eval", "--index", "var/index", *args, "--json")
    assert done.returncode == 0, done.stderr
    assert "var/index was built without a cross-encoder: nothing that is asked of it is confirmed" in done.stderr
    assert json.loads(done.stdout)["cascade"] is None


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("--messages messages.csv", "--messages need the --faq or the --index"),
        ("--index var/index", "--index needs --messages"),
        ("--index var/index --faq faq.yaml --messages messages.csv", "--index and --faq exclude each other"),
        ("--index var/index --messages m.csv --target-precision 0.8", "--index and --target-precision exclude each"),
        ("--faq faq.yaml --messages messages.csv --folds 3", "--folds and --messages exclude each other"),
        ("--faq faq.yaml --shots 5", "--shots and --against need --messages"),
        ("--faq faq.yaml --messages messages.csv --draws 3", "--draws needs --shots"),
        ("--faq faq.yaml --messages messages.csv --shots 3 --against x", "--shots and --against exclude each other"),
        ("--faq faq.yaml --folds 1", "1 is not in the range"),
    ],
)
def test_options_that_make_no_sense_together(site: Site, args: str, says: str) -> None:
    """What cannot be meant is answered with how to use the command, and exit status 2."""
    done = site.run("eval", *args.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
