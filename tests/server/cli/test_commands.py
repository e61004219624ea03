"""Guards the other commands on their happy paths: help, export, build, index and doctor, as processes."""

import json
import re
import signal
from pathlib import Path

import pytest

from export.bundle import open_bundle
from intents.store import current_folder, current_manifest, list_versions
from tests.server.cli.site import FAQ, Site, add_version, holding, truncated

COMMANDS = ["ask", "build", "doctor", "eval", "export", "index", "journal", "schema", "serve", "train"]


def test_help(site: Site) -> None:
    """`faqwire --help` lists every command with what it does; `--version` says which faqwire it is."""
    done = site.run("--help")
    listed = re.findall(r"^  (\w+) +[A-Z].*\.$", done.stdout, re.MULTILINE)
    assert listed == COMMANDS
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"faqwire, version \d+\.\d+\.\d+\n", site.run("--version").stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(site: Site, command: str) -> None:
    """Every command explains itself and its options, and touches nothing."""
    before = site.snapshot()
    done = site.run(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: faqwire {command} ")
    assert site.snapshot() == before


@pytest.mark.parametrize("args", [("chat",), ("serve", "--porte", "1"), ("eval", "--messages", "messages.csv")])
def test_wrong_use(site: Site, args: tuple[str, ...]) -> None:
    """A command line that makes no sense is answered with how to use it, and exit status 2."""
    done = site.run(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: ")
    assert "\nError: " in done.stderr


def test_export_that_is_up_to_date(site: Site) -> None:
    """A bundle of the same model in the same variants is not made again."""
    before = site.snapshot()
    done = site.run("export")
    assert (done.returncode, done.stdout) == (0, "")
    assert re.fullmatch(r"var/model is up to date: sentence-transformers/all-MiniLM-L6-v2, .*\n", done.stderr)
    assert site.snapshot() == before


def test_schema(site: Site) -> None:
    """The protocol's schemas are written where they are wanted, as the documentation has them."""
    done = site.run("schema", "-o", "made/here")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines() == ["wrote made/here/asyncapi.json", "wrote made/here/schema.json"]
    for name in ("asyncapi.json", "schema.json"):
        kept = Path(__file__).parents[3] / "docs" / name
        assert (site.folder / "made" / "here" / name).read_bytes() == kept.read_bytes()


@pytest.fixture
def tiny_model(site: Site) -> Path:
    """A local model, small and random."""
    from tests.export.models import make_model  # brings torch

    return make_model(site.folder / "tiny")


def test_export(site: Site, tiny_model: Path) -> None:
    """A local model becomes a bundle, with progress on standard error and a table of its variants."""
    done = site.run("export", "tiny", "-o", "new", "--variants", "fp32", "--max-tokens", "16")
    assert done.returncode == 0, done.stderr
    manifest = open_bundle(site.folder / "new").manifest
    assert (manifest.kind, manifest.max_tokens, list(manifest.variants)) == ("bi-encoder", 16, ["fp32"])
    assert done.stderr.splitlines() == ["loading tiny", "making fp32", "comparing fp32 with torch"]
    assert "bi-encoder in new" in done.stdout
    assert {path.name for path in site.folder.iterdir()} >= {"new"}
    assert not [path for path in site.folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_export(site: Site, tiny_model: Path, number: signal.Signals, status: int) -> None:
    """An export that is interrupted leaves no half of a bundle, and the one that was there as it was."""
    before = site.snapshot()
    with site.start("export", "tiny", "-o", "var/model") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "loading tiny\n"
        process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == status
    assert "Traceback" not in err
    assert site.snapshot() == before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_build(site: Site, number: signal.Signals, status: int) -> None:
    """A build that is interrupted leaves the index as it was."""
    before = site.snapshot()
    with site.start("build", "faq.yaml") as process:
        assert process.stderr is not None
        assert re.fullmatch(r"encoding \d of 8 texts\n", process.stderr.readline())
        process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == status
    assert "Traceback" not in err
    assert site.snapshot() == before


def test_build(site: Site) -> None:
    """A FAQ becomes an index that serves; the same again is up to date; a change encodes what is new and no more."""
    done = site.run("build", "faq.yaml", "-o", "new")
    assert done.returncode == 0, done.stderr
    version = current_folder(site.folder / "new").name
    assert done.stdout.startswith(f"new: version {version}, 2 entries, 8 phrasings and answers\n")
    assert re.search(r"^note: .*add phrasings, and see with", done.stdout, re.MULTILINE)
    assert done.stderr.startswith("encoding 8 of 8 texts\n")

    before = site.snapshot()
    again = site.run("build", "faq.yaml", "-o", "new")
    assert (again.returncode, again.stdout) == (0, "")
    assert again.stderr == f"new is up to date: version {version}, 2 entries\n"
    assert site.snapshot() == before

    holding("faq.yaml", FAQ.replace("send it back", "take it back"))(site.folder)
    changed = site.run("build", "faq.yaml", "-o", "new")
    assert changed.stderr.startswith("encoding 1 of 8 texts\n")
    assert current_folder(site.folder / "new").name != version

    asked = site.run("ask", "--index", "new", "--json", "take it back")
    assert json.loads(asked.stdout)["entry"]["id"] == "returns"


def test_build_with_a_cross_encoder(site: Site, cross_encoder: Path) -> None:
    """The index is calibrated with the cross-encoder, by flag or setting; other lengths of pairs make other indexes."""
    done = site.run("build", "faq.yaml", "-o", "new", "--cross-encoder", "var/cross")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^reading [\d,]+ pairs with the cross-encoder$", done.stderr, re.MULTILINE)
    assert re.search(
        r"^confirmer: tiny-cross, up to 5 candidates of a message, pairs of 64 tokens; ", done.stdout, re.MULTILINE
    )
    assert re.search(r"^expected with it: .*; \d+\.\d% of all messages confirmed$", done.stdout, re.MULTILINE)
    manifest = current_manifest(site.folder / "new")
    assert manifest is not None
    assert manifest.confirmer is not None
    assert manifest.confirmer.fingerprint == open_bundle(cross_encoder).manifest.fingerprint
    assert (manifest.confirmer.pair_tokens, manifest.confirmer.candidates) == (64, 5)

    set_so = {"FAQWIRE_CROSS_ENCODER": "var/cross"}
    again = site.run("build", "faq.yaml", "-o", "new", env=set_so)
    assert again.stderr == f"new is up to date: version {manifest.version}, 2 entries\n"
    shorter = site.run("build", "faq.yaml", "-o", "new", env={**set_so, "FAQWIRE_PAIR_TOKENS": "32"})
    assert "pairs of 32 tokens" in shorter.stdout
    without = site.run("build", "faq.yaml", "-o", "new")
    assert (without.returncode, "confirmer" in without.stdout) == (0, False)


def test_build_mends_a_truncated_index(site: Site) -> None:
    """A build does not trust a damaged version, however equal its manifest: it makes a new one beside it."""
    site.run("build", "faq.yaml")
    truncated("var/index/current/vectors.npy")(site.folder)
    damaged = current_folder(site.index)
    done = site.run("build", "faq.yaml")
    assert done.returncode == 0, done.stderr
    assert "up to date" not in done.stderr
    assert damaged.is_dir()
    assert [version.name for version in list_versions(site.index) if version.problem] == [damaged.name]
    assert current_folder(site.index) != damaged


@pytest.fixture
def versions(site: Site) -> list[str]:
    """Three versions of the index, oldest first; the second is current."""
    name = current_folder(site.index).name
    add_version(site, "00000000T000000000Z-oldest")
    add_version(site, "99999999T000000000Z-newest")
    return ["00000000T000000000Z-oldest", name, "99999999T000000000Z-newest"]


def test_index(site: Site, versions: list[str]) -> None:
    """Versions are listed with a star at the current one, rolled back to, and removed but for the current one."""
    oldest, middle, newest = versions
    listed = site.run("index", "list")
    assert [line[:2] + line[2:].split()[0] for line in listed.stdout.splitlines()] == [
        f"  {oldest}",
        f"* {middle}",
        f"  {newest}",
    ]
    used = site.run("index", "use", oldest)
    assert (used.returncode, used.stderr) == (0, f"var/index: version {oldest} is current\n")
    assert current_folder(site.index).name == oldest
    pruned = site.run("index", "prune", "--keep", "1")
    assert (pruned.returncode, pruned.stderr) == (0, f"removed {middle}\n")
    assert [version.name for version in list_versions(site.index)] == [oldest, newest]
    assert site.run("index", "prune", "--keep", "1").stderr == "var/index: nothing to remove\n"
    assert sorted(path.name for path in site.index.iterdir()) == ["current", "versions"]
    asked = site.run("ask", "Where is my order?", "--json")
    assert json.loads(asked.stdout)["index"] == oldest


def test_doctor(site: Site) -> None:
    """On a sound site everything is looked at and found right; exit status 0, and nothing is written anywhere."""
    before = site.snapshot()
    done = site.run("doctor")
    findings = [line.split(":")[0] for line in done.stdout.splitlines()]
    assert [finding for finding in findings if not finding.startswith("note")] == [
        *("ok    machine", "ok    packages", "ok    onnxruntime", "ok    model", "ok    serving", "ok    index"),
    ]
    assert (done.returncode, done.stderr) == (0, "")
    assert site.snapshot() == before
