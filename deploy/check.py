"""Asks each deployment file's own linter about it: `make deploy-check`, or `check.py [FOLDER [LINTER]]`.

For every file it is said who checked it, or who would have, were it installed. The exit status is 1 where a linter that
is there finds something, and where a file has neither a linter nor a test.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme

DEPLOY = Path(__file__).parent
# Where `make deploy-linters` puts them; where servers are, which is not on everybody's path.
PLACES = (DEPLOY.parent / ".cache" / "linters" / "bin", *os.environ.get("PATH", "").split(os.pathsep), "/usr/sbin")
PATH = os.pathsep.join(map(str, PLACES))
# A service's exposure, of 100: it has to reach the network and this machine's files, and nothing else.
MOST_EXPOSED = 15
# The oldest Kubernetes that the manifests are for; kubernetes-validate takes the newest that it knows by itself.
OLDEST_KUBERNETES = "1.32"

# `tests/test_deploy.py` and `tests/server/test_proxies.py` check these, and more about the others.
BY_TESTS = (
    "grafana/**/*.json",
    "grafana/**/*.yaml",
    "kubernetes/index/faq.yaml",
    "kubernetes/servers/settings.env",
    "systemd/faqwire.toml",
)
# What is no deployment file; programs are checked like all of the project's.
OWN = ("**/*.py", "linters.txt")
# All but kustomization.yaml, which is no manifest, and the FAQ.
MANIFESTS = ("kubernetes/servers/[!k]*.yaml", "kubernetes/index/job.yaml")

Run = Callable[[Sequence[str | Path]], str]


@dataclass(frozen=True)
class Linter:
    """Who checks some files.

    Attributes:
        program: what has to be installed.
        install: how.
        files: what it checks: patterns, relative to the folder.
        check: runs it by `run` on these files, with a scratch folder, and gives what it found; nothing is well.
    """

    program: str
    install: str
    files: tuple[str, ...]
    check: Callable[[Run, list[Path], Path], str]


def run(command: Sequence[str | Path]) -> str:
    """What a command says if it fails; nothing if it does not."""
    done = _start(command)
    return "" if done.returncode == 0 else _said(done)


def run_silent(command: Sequence[str | Path]) -> str:
    """What a command says, which would say nothing if all were well."""
    done = _start(command)
    return _said(done) if done.returncode or done.stdout.strip() or done.stderr.strip() else ""


def _start(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": PATH, "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stdout + done.stderr).strip() or f"ended with {done.returncode}, and said nothing"


def _hadolint(run: Run, files: list[Path], scratch: Path) -> str:
    del scratch
    return run(["hadolint", *files])


def _compose(run: Run, files: list[Path], scratch: Path) -> str:
    del scratch
    return run(["check-jsonschema", "--builtin-schema", "vendor.compose-spec", *files])


def _promtool(run: Run, files: list[Path], scratch: Path) -> str:
    del scratch
    found = []
    for file in files:
        match file.name.split("."):
            case [*_, "test", "yml"]:
                found.append(run(["promtool", "test", "rules", file]))
            case [*_, "rules", "yml"]:
                found.append(run(["promtool", "check", "rules", file]))
            case _:
                found.append(run(["promtool", "check", "config", file]))
    return "\n".join(filter(None, found))


def _kustomize(run: Run, files: list[Path], scratch: Path) -> str:
    """What is built of each kustomization has to be valid as well."""
    found = []
    for number, file in enumerate(files):
        built = scratch / f"{number}.yaml"
        found.append(run(["kubectl", "kustomize", file.parent, "--output", built]))
        if built.exists() and _is_there("kubernetes-validate"):
            found.append(_kubernetes(run, [built], scratch))
    return "\n".join(filter(None, found))


def _kubernetes(run: Run, files: list[Path], scratch: Path) -> str:
    del scratch
    validate = ["kubernetes-validate", "--strict", "--no-warn", "--quiet"]
    return "\n".join(filter(None, (run([*validate, *version, *files]) for version in ([], ["-k", OLDEST_KUBERNETES]))))


def _systemd(run: Run, files: list[Path], scratch: Path) -> str:
    """The unit alone and with what changes it, its program replaced by one that is here."""
    unit, *changes = sorted(files, key=lambda file: file.suffix != ".service")
    text = unit.read_text(encoding="utf-8").replace("/opt/faqwire/bin/faqwire", sys.executable)
    copy = scratch / unit.name
    copy.write_text(text, encoding="utf-8")
    # It warns of what it does not know, and goes on.
    found = [run_silent(["systemd-analyze", "verify", copy])]
    found.append(run(["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", copy]))
    (scratch / f"{unit.name}.d").mkdir()
    for change in changes:
        shutil.copy(change, scratch / f"{unit.name}.d")
    found.append(run_silent(["systemd-analyze", "verify", copy]))
    return "\n".join(filter(None, found))


def _sysusers(run: Run, files: list[Path], scratch: Path) -> str:
    (scratch / "etc").mkdir()
    found = run(["systemd-sysusers", f"--root={scratch}", *files])
    users = scratch / "etc" / "passwd"
    if not found and not (users.exists() and "\nfaqwire:" in f"\n{users.read_text(encoding='utf-8')}"):
        return "it makes no user faqwire"
    return found


def _nginx(run: Run, files: list[Path], scratch: Path) -> str:
    """As they are installed, with a certificate made for the check."""
    certificate = trustme.CA().issue_cert("www.example.org")
    certificate.cert_chain_pems[0].write_to_path(scratch / "fullchain.pem")
    certificate.private_key_pem.write_to_path(scratch / "privkey.pem")
    (scratch / "snippets").mkdir()
    for file in files:
        text = file.read_text(encoding="utf-8").replace("/etc/letsencrypt/live/www.example.org", str(scratch))
        (scratch / ("site.conf" if file.name == "site.conf" else f"snippets/{file.name}")).write_text(text, "utf-8")
    main = scratch / "nginx.conf"
    main.write_text(
        f"pid {scratch}/pid; events {{}} http {{ access_log off; include {scratch}/site.conf; }}\n", "utf-8"
    )
    return run(["nginx", "-t", "-e", "stderr", "-p", scratch, "-c", main])


def _caddy(run: Run, files: list[Path], scratch: Path) -> str:
    home = [f"HOME={scratch}", f"XDG_DATA_HOME={scratch}", f"XDG_CONFIG_HOME={scratch}"]
    found = [run(["env", *home, "caddy", "validate", "--adapter", "caddyfile", "--config", file]) for file in files]
    return "\n".join(filter(None, found))


LINTERS = (
    Linter("hadolint", "make deploy-linters", ("Dockerfile", "Dockerfile.*"), _hadolint),
    Linter("check-jsonschema", "make deploy-linters", ("compose.yaml", "compose.*.yaml"), _compose),
    Linter("promtool", "it comes with Prometheus", ("prometheus/*.yml",), _promtool),
    Linter("kubernetes-validate", "make deploy-linters", MANIFESTS, _kubernetes),
    Linter("kubectl", "it comes with Kubernetes", ("kubernetes/**/kustomization.yaml",), _kustomize),
    Linter("systemd-analyze", "it comes with systemd", ("systemd/*.service", "systemd/gpu.conf"), _systemd),
    Linter("systemd-sysusers", "it comes with systemd", ("systemd/*.sysusers.conf",), _sysusers),
    Linter("nginx", "apt-get install nginx-light", ("nginx/*.conf",), _nginx),
    Linter("caddy", "apt-get install caddy", ("caddy/Caddyfile",), _caddy),
)


def _is_there(program: str) -> bool:
    return shutil.which(program, path=PATH) is not None


def main(folder: Path, only: str | None = None) -> int:
    """Check everything in a folder, and say who checked what.

    Args:
        folder: where the files are.
        only: the one linter to ask, or None for all.

    Returns:
        The exit status: 1 where something was found, 2 where no such linter is known.
    """

    def files_of(patterns: Sequence[str]) -> list[Path]:
        return sorted({file for pattern in patterns for file in folder.glob(pattern)})

    def names_of(files: Iterable[Path]) -> str:
        return " ".join(sorted(str(file.relative_to(folder)) for file in files))

    if only not in {None, *(linter.program for linter in LINTERS)}:
        print(f"there is no linter {only} here")
        return 2
    found, by_tests = False, files_of(BY_TESTS)
    checked = {*by_tests, *files_of(OWN)}
    for linter in LINTERS:
        files = files_of(linter.files)
        checked.update(files)
        names = names_of(files)
        if only not in {None, linter.program}:
            continue
        if not _is_there(linter.program):
            print(f"skipped  {names}: {linter.program} is not installed ({linter.install})")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            problem = linter.check(run, files, Path(scratch))
        found = found or bool(problem)
        print(f"{'FAILED ' if problem else 'ok     '}  {names}: {linter.program}")
        if problem:
            print(problem)
    print(f"tests    {names_of(by_tests)}: tests/test_deploy.py")
    if nobody := {file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc"} - checked:
        print(f"FAILED   {names_of(nobody)}: nobody checks it")
    return 1 if found or nobody else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else DEPLOY, *sys.argv[2:3]))
