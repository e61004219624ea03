"""Guards what the command does with what is missing, empty, truncated, damaged, foreign or taken: see `cases`.

Every case: exactly one line on standard error that says what is wrong, exit status 1, no traceback, and the whole
working directory, the home and the temporary folder included, left as it was found.
"""

import re
import socket
import sys
from collections.abc import Sequence

import pytest

from export.runtime.session import gpu_count
from tests.server.cli.cases import ASK, BUILD, DOCTOR, EVAL, EXPORT, INDEX, SERVE, SICK, Case
from tests.server.cli.site import FAQWIRE, Damage, Site, add_version, holding, truncated

# What fails here fails before torch is imported, for it cannot be.
WITHOUT_TORCH = (sys.executable, "-c", "import sys; sys.modules['torch'] = None; from server.cli import main; main()")


def table(**commands: dict[str, Case]) -> list[object]:
    """All cases as parameters, each under a name that says what it is."""
    return [
        pytest.param(case, id=f"{command}: {name}")
        for command, cases in commands.items()
        for name, case in cases.items()
    ]


def refuse(site: Site, args: Sequence[str], says: str, command: Sequence[str] = FAQWIRE) -> None:
    """Run the command, and check that it refuses as it should."""
    before = site.snapshot()
    done = site.run(*args, command=command)
    assert re.fullmatch(rf"faqwire: .*{says}.*\n", done.stderr), done.stderr
    assert done.returncode == 1
    assert done.stdout == ""
    assert site.snapshot() == before


@pytest.mark.parametrize("case", table(build=BUILD, serve=SERVE, ask=ASK, eval=EVAL, index=INDEX, doctor=DOCTOR))
def test_refusals(site: Site, case: Case) -> None:
    """One sentence, exit status 1, and everything as it was."""
    case.damage(site.folder)
    refuse(site, case.command.split(), case.says)


@pytest.mark.parametrize("case", table(export=EXPORT))
def test_export_refuses_before_torch_is_imported(site: Site, case: Case) -> None:
    """What cannot be exported is refused at once, in one sentence, and nothing is left behind."""
    case.damage(site.folder)
    refuse(site, case.command.split(), case.says, WITHOUT_TORCH)


def test_busy_port(site: Site) -> None:
    """A port that is taken is named, with what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refuse(site, ["serve", "--port", port], f"127.0.0.1:{port} cannot be listened on .* choose another --port")


@pytest.mark.skipif(gpu_count() > 0, reason="there is a GPU")
def test_cuda_without_cuda(site: Site) -> None:
    """CUDA that was asked for and is absent is a failed start, never a silent CPU."""
    refuse(site, ["serve", "--port", "0", "--provider", "cuda"], 'provider "cuda" was asked for but')


def test_report_without_what_draws_it(site: Site) -> None:
    """Without matplotlib the evaluation that was to be reported does not begin."""
    code = "import sys; sys.modules['matplotlib'] = None; from server.cli import main; main()"
    args = ["eval", "--faq", "faq.yaml", "--report", "report.html"]
    refuse(
        site, args, "a report needs matplotlib and Jinja; install `faqwire\\[build\\]`", (sys.executable, "-c", code)
    )


def test_problems_of_a_faq_have_a_line_each(site: Site) -> None:
    """Everything that is wrong with a FAQ is told at once: file, line, field and what is expected."""
    holding(
        "faq.yaml",
        "entries:\n- id: a\n  question: ''\n  answer: b\n  follow_ups: [c]\n- id: a\n  question: d\n  answer: e\n",
    )(site.folder)
    before = site.snapshot()
    done = site.run("build", "faq.yaml")
    assert done.stderr.splitlines() == [
        "faqwire: faq.yaml:3: question: is empty; write a text",
        "faq.yaml:5: follow_ups[0]: 'c' is no entry's id",
        "faq.yaml:6: id: 'a' is taken by the entry at faq.yaml:2; ids are unique",
    ]
    assert (done.returncode, done.stdout) == (1, "")
    assert site.snapshot() == before


@pytest.mark.parametrize(("says", "damage"), SICK.values(), ids=SICK)
def test_doctor_finds_what_is_wrong(site: Site, says: str, damage: Damage) -> None:
    """One finding is wrong, in one sentence; exit status 1, no traceback, and everything as it was."""
    damage(site.folder)
    before = site.snapshot()
    done = site.run("doctor")
    wrong = [line for line in done.stdout.splitlines() if line.startswith("wrong ")]
    assert len(wrong) == 1
    assert re.match(f"wrong {says}", wrong[0])
    assert (done.returncode, done.stderr) == (1, "")
    assert site.snapshot() == before


@pytest.mark.parametrize("file", ["items.ann", "manifest.json"])
def test_list_names_damaged_versions(site: Site, file: str) -> None:
    """A truncated version is shown with what is wrong beside those that are sound, and exit status 1."""
    add_version(site, "old")
    truncated(f"var/index/versions/old/{file}")(site.folder)
    before = site.snapshot()
    done = site.run("index", "list")
    sound, damaged = done.stdout.splitlines()
    assert sound.startswith("* ")
    assert re.match(rf"  old  .*{file} is damaged", damaged)
    assert (done.returncode, done.stderr) == (1, "")
    assert site.snapshot() == before
