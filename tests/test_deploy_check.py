"""Guards `make deploy-check`: every linter finds what is wrong with its files, and no file goes without one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy_files import DEPLOY
from tests.test_docs import read

# What is broken in which file, and the linter that has to find it.
MISTAKES = [
    ("Dockerfile", "USER 10001:10001", "USER root", "hadolint"),
    ("Dockerfile.cuda", 'CMD ["serve"]', "CMD serve", "hadolint"),
    ("compose.yaml", "stop_grace_period:", "stop_graceperiod:", "check-jsonschema"),
    ("prometheus/prometheus.yml", "scrape_configs:", "scrape_config:", "promtool"),
    ("prometheus/faqwire.rules.yml", "> 0.02", "> > 0.02", "promtool"),
    ("prometheus/faqwire.rules.yml", "> 0.02", "> 2", "promtool"),
    ("kubernetes/servers/deployment.yaml", "revisionHistoryLimit:", "revisionHistory:", "kubernetes-validate"),
    ("kubernetes/index/job.yaml", "backoffLimit: 1", "backoffLimit: one", "kubernetes-validate"),
    ("kubernetes/servers/kustomization.yaml", "- service.yaml", "- services.yaml", "kubectl"),
    ("systemd/faqwire.service", "ProtectSystem=", "ProtectSystems=", "systemd-analyze"),
    ("systemd/faqwire.service", "User=faqwire", "User=root", "systemd-analyze"),
    ("systemd/gpu.conf", "DevicePolicy=closed", "DevicePolicy=shut", "systemd-analyze"),
    ("systemd/faqwire.sysusers.conf", "u faqwire -", "u faqwired -", "systemd-sysusers"),
    ("nginx/faqwire.conf", "proxy_read_timeout", "proxy_reed_timeout", "nginx"),
    ("caddy/Caddyfile", "reverse_proxy", "reverse_prox", "caddy"),
]


def check(folder: Path, *linter: str) -> tuple[int, list[str]]:
    """Check a folder, by all linters or one: the exit status, and what was said of each file."""
    command: list[str | Path] = [sys.executable, DEPLOY / "check.py", folder, *linter]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the folder."""
    return Path(shutil.copytree(DEPLOY, tmp_path / "deploy", ignore=shutil.ignore_patterns("__pycache__")))


def test_all_is_well(copy: Path) -> None:
    """No linter finds anything, and each file is named with whoever checks it."""
    code, lines = check(copy)
    assert code == 0, "\n".join(lines)
    assert all(line.startswith(("ok", "skipped", "tests")) for line in lines)
    named = {name for line in lines for name in line.partition(": ")[0].split()[1:]}
    there = {str(file.relative_to(copy)) for file in copy.rglob("*") if file.is_file() and file.suffix != ".py"}
    assert named == there - {"linters.txt"}


@pytest.mark.parametrize(("name", "right", "wrong", "linter"), MISTAKES)
def test_mistakes_are_found(copy: Path, name: str, right: str, wrong: str, linter: str) -> None:
    """A mistake fails the check, and the line of the linter that found it says so."""
    file = copy / name
    text = file.read_text(encoding="utf-8")
    assert right in text
    file.write_text(text.replace(right, wrong), encoding="utf-8")
    code, lines = check(copy, linter)
    if any(line.startswith("skipped") and f": {linter} is not installed" in line for line in lines):
        pytest.skip(f"{linter} is not installed")
    assert code == 1
    assert any(line.startswith("FAILED") and name in line and line.endswith(f": {linter}") for line in lines), lines


def test_a_file_that_nobody_checks(copy: Path) -> None:
    """A new file needs a linter, or a test."""
    (copy / "haproxy.cfg").write_text("frontend faqwire\n", encoding="utf-8")
    code, lines = check(copy, "hadolint")
    assert code == 1
    assert lines[-1] == "FAILED   haproxy.cfg: nobody checks it"


def test_a_linter_that_is_not_there(copy: Path) -> None:
    """A name that is none is refused, and passes for no check that found nothing."""
    code, lines = check(copy, "hadolin")
    assert (code, lines) == (2, ["there is no linter hadolin here"])


def test_linters_are_pinned_without_addresses() -> None:
    """Any mirror of PyPI can serve them."""
    pins = [line for line in read("deploy/linters.txt").splitlines() if line and not line.startswith("#")]
    assert pins
    assert all(line.count("==") == 1 and "/" not in line for line in pins)
