"""The documentation is complete and true: what can be checked of it by a machine is checked here."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import msgspec
import pytest

from export.bundle import BundleManifest, ModelSource, Parity
from intents.decide import Confidence, DecisionKind, Policy
from intents.entries import Entry, Header, Texts
from intents.errors import FaqError
from intents.evaluate import Report
from intents.formats import load_faq
from intents.index import Calibration, IndexManifest, SearchPlan
from server import errors, messages
from server.cli import group
from server.settings import PREFIX, Settings, read_settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")

WIRE_TYPES: dict[str, type[msgspec.Struct]] = {
    "ask": messages.Ask,
    "ping": messages.Ping,
    "welcome": messages.Welcome,
    "answer": messages.Answer,
    "error": messages.Error,
    "pong": messages.Pong,
}
# Structs inside of messages, and the section that has their fields.
PARTS = [
    (messages.Limits, "welcome"),
    (messages.EntryView, "answer"),
    (messages.CandidateView, "answer"),
    (messages.FollowUp, "answer"),
]


def page(name: str) -> str:
    """The text of a page of docs/."""
    return (DOCS / name).read_text(encoding="utf-8")


def sections(text: str) -> dict[str, str]:
    """Every heading without its backticks, with what stands below it up to the next heading of its level or above."""
    prose = re.sub(FENCE, lambda m: "\n" * m[0].count("\n"), text)  # a # in code is no heading
    lines, found = text.splitlines(), {}
    heads = [(i, len(m[1]), m[2]) for i, line in enumerate(prose.splitlines()) if (m := re.match(r"(#+) (.*)", line))]
    for position, (start, level, title) in enumerate(heads):
        end = next((i for i, other, _ in heads[position + 1 :] if other <= level), len(lines))
        found[title.replace("`", "")] = "\n".join(lines[start + 1 : end])
    return found


def rows(text: str) -> dict[str, list[str]]:
    """Table rows by each name in backticks in their first cell."""
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {name: row for row in cells for name in re.findall(r"`([^`]+)`", row[0])}


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a language."""
    return [block for found, block in FENCE.findall(text) if found == language]


def fields_of(struct: type[msgspec.Struct]) -> list[str]:
    """The names of a struct's fields as they are written in JSON."""
    return [field.encode_name for field in msgspec.structs.fields(struct)]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_setting_is_documented(name: str) -> None:
    """settings.md has every setting with its default, its environment variable and its flag."""
    table = rows(sections(page("settings.md"))["Settings"])
    assert name in table, f"docs/settings.md has no row for the setting {name}"
    _, kind, default, variable, flag, _ = table[name]
    serve = group.get_command(click.Context(group), "serve")
    assert serve is not None
    flags = {option for parameter in serve.params for option in parameter.opts}
    own = f"--{name.replace('_', '-')}"
    expected = _as_toml(Settings.model_fields[name].default)
    assert default == f"`{expected}`", f"docs/settings.md: the default of {name} is {expected}, not {default}"
    assert variable == f"`{PREFIX}{name.upper()}`", f"docs/settings.md: {name}: wrong variable {variable}"
    assert flag == (f"`{own}`" if own in flags else "none"), f"docs/settings.md: {name}: wrong flag {flag}"
    choices = [*get_args(Settings.model_fields[name].annotation)]
    if choices and all(isinstance(choice, str) for choice in choices):
        assert re.findall(r"`(\w+)`", kind) == choices, f"docs/settings.md: the choices of {name} are {choices}"
    for bound in Settings.model_fields[name].metadata:
        for limit in ("ge", "le"):
            value = getattr(bound, limit, None)
            assert value is None or str(value) in kind.split(), f"docs/settings.md: a limit of {name} is {value}"


def _as_toml(value: object) -> str:
    match value:
        case Path() | str():
            return f'"{value}"'
        case tuple():
            return str(list(value))
        case _:
            return str(value)


def test_no_setting_is_documented_that_is_not_there() -> None:
    """settings.md has no row for anything that is not a setting."""
    extra = rows(sections(page("settings.md"))["Settings"]).keys() - Settings.model_fields.keys()
    assert not extra, f"docs/settings.md documents {', '.join(sorted(extra))}, which are no settings"


@pytest.mark.parametrize("block", [b for p in PAGES for b in blocks(p.read_text(encoding="utf-8"), "toml")])
def test_settings_files_are_read(block: str, tmp_path: Path) -> None:
    """The settings files in the documentation are valid."""
    file = tmp_path / "faqwire.toml"
    file.write_text(block, encoding="utf-8")
    assert read_settings(file)


def test_wire_types_are_all_of_them() -> None:
    """The types that this file checks are those that client and server send."""
    tags = {t.__struct_config__.tag for t in (*get_args(messages.ClientMessage), *get_args(messages.ServerMessage))}
    assert tags == WIRE_TYPES.keys()


@pytest.mark.parametrize(
    ("struct", "section"), [*((struct, tag) for tag, struct in WIRE_TYPES.items()), *PARTS], ids=lambda v: str(v)
)
def test_fields_of_messages_are_documented(struct: type[msgspec.Struct], section: str) -> None:
    """protocol.md has a row for every field of every message."""
    text = sections(page("protocol.md")).get(section, "")
    assert text, f"docs/protocol.md has no section {section}"
    documented = rows(text).keys() | set(re.findall(r"with `(\w+)` and `(\w+)`", text) and ["id", "question"])
    missing = [name for name in fields_of(struct) if name not in documented]
    assert not missing, f"docs/protocol.md, section {section}: {', '.join(missing)} of {struct.__name__} is missing"


def test_error_codes_are_documented() -> None:
    """protocol.md has every error code, whether it is retryable, and no other code."""
    table = rows(sections(page("protocol.md"))["Error codes"])
    codes = {error.code: error for error in errors.RequestError.__subclasses__()}
    missing = codes.keys() - {name for name, row in table.items() if f"`{name}`" in row[0]}
    assert not missing, f"docs/protocol.md lacks the error codes {', '.join(sorted(missing))}"
    assert table.keys() == codes.keys(), "docs/protocol.md has error codes that are not there"
    wrong = [code for code, error in codes.items() if table[code][1] != ("yes" if error.retryable else "no")]
    assert not wrong, f"docs/protocol.md is wrong about whether {', '.join(wrong)} is retryable"


def test_decisions_are_documented() -> None:
    """README.md and protocol.md have every decision."""
    readme = rows((ROOT / "README.md").read_text(encoding="utf-8"))
    for kind in get_args(DecisionKind):
        assert kind in readme, f"README.md has no row for the decision {kind}"
        assert kind in rows(sections(page("protocol.md"))["answer"]), f"docs/protocol.md has no row for {kind}"


@pytest.mark.parametrize(
    "block",
    [b for p in (ROOT / "README.md", DOCS / "protocol.md") for b in blocks(p.read_text(encoding="utf-8"), "json")],
)
def test_json_examples_are_messages(block: str) -> None:
    """Every JSON example decodes as a message, with all of a server message's fields and no other."""
    example: dict[str, Any] = msgspec.json.decode(block)
    if example["type"] in {"ask", "ping"}:
        assert example.keys() <= {"type", *fields_of(type(messages.decode(block)))}
    else:
        assert msgspec.json.decode(messages.encode(messages.decode_server(block))) == example


@pytest.mark.parametrize(
    ("name", "struct"),
    [
        ("Header", Header),
        ("Texts", Texts),
        ("Entry", Entry),
        *(("Model bundle", s) for s in (BundleManifest, ModelSource, Parity)),
        *(("Index", s) for s in (IndexManifest, SearchPlan, Calibration, Policy, Confidence)),
    ],
)
def test_fields_of_files_are_documented(name: str, struct: type[msgspec.Struct]) -> None:
    """formats.md names every field of FAQs and manifests in a table."""
    table = "\n".join(line for line in sections(page("formats.md"))[name].splitlines() if line.startswith("|"))
    missing = [field for field in fields_of(struct) if f"`{field}`" not in table]
    assert not missing, f"docs/formats.md, section {name}: {', '.join(missing)} of {struct.__name__} is missing"


def test_defaults_of_texts_are_documented() -> None:
    """formats.md has the words that are said where the operator has written none."""
    table = rows(sections(page("formats.md"))["Texts"])
    for name, default in msgspec.structs.asdict(Texts()).items():
        assert table[name][1] == f"`{default}`", f"docs/formats.md: the default of texts.{name} is {default!r}"


def test_figures_are_documented() -> None:
    """evaluation.md has every figure of `faqwire eval` by its JSON key."""
    table = sections(page("evaluation.md"))["faqwire eval"]
    missing = [name for name in fields_of(Report) if f"| `{name}` |" not in table]
    assert not missing, f"docs/evaluation.md lacks {', '.join(missing)}"


def faq_examples() -> Iterator[Any]:
    """Every FAQ in the documentation that is not meant to be wrong."""
    for file in PAGES:
        for block in blocks(file.read_text(encoding="utf-8"), "yaml"):
            if not block.startswith("# wrong") and "entries: []" not in block:
                yield pytest.param(block, id=f"{file.name}-{len(block)}")


@pytest.mark.parametrize("block", faq_examples())
def test_faqs_load(block: str, tmp_path: Path) -> None:
    """The FAQs in the documentation load, nothing left out."""
    file = tmp_path / "faq.yaml"
    file.write_text(block, encoding="utf-8")
    assert not load_faq(file).left_out


def test_there_are_faqs_in_readme_and_formats() -> None:
    """README.md and formats.md show a FAQ."""
    shown = {str(param.id).partition("-")[0] for param in faq_examples()}
    assert {"README.md", "formats.md"} <= shown


def test_wrong_faqs_have_the_errors_that_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The errors under the wrong FAQs of formats.md are those that they have."""
    monkeypatch.chdir(tmp_path)
    text = sections(page("formats.md"))["Errors"]
    wrong = blocks(text, "yaml")
    assert wrong
    for block, said in zip(wrong, blocks(text, "text"), strict=True):
        Path("faq.yaml").write_text(block, encoding="utf-8")
        with pytest.raises(FaqError) as caught:
            load_faq(Path("faq.yaml"))
        assert str(caught.value).splitlines() == said.splitlines()


def commands(parent: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name."""
    for name in parent.list_commands(click.Context(parent)):
        command = parent.get_command(click.Context(parent), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def test_commands_are_in_the_readme() -> None:
    """README.md has a row for every command."""
    table = sections((ROOT / "README.md").read_text(encoding="utf-8"))["Commands"]
    missing = [name for name, _ in commands(group, "faqwire") if not re.search(rf"^\| `{name}\b", table, re.MULTILINE)]
    assert not missing, f"README.md has no row for {', '.join(missing)}"


def test_commands_that_are_shown_exist() -> None:
    """Every `faqwire` command line in the documentation names a command that is there, with flags that it has."""
    known = {
        name: {o for p in command.params for o in p.opts} | {"--help"} for name, command in commands(group, "faqwire")
    }
    for file in PAGES:
        for line in re.findall(r"(?<!pip install )\bfaqwire (?:index )?[a-z]+(?: [^`\n]*)?", file.read_text("utf-8")):
            name = next((n for n in known if re.match(rf"{n}\b", line)), None)
            flags = re.findall(r"(?<= )--?[a-z][\w-]*", line.partition('"')[0])
            assert not flags or name, f"{file.name} shows {line!r}, which is no command"
            unknown = [flag for flag in flags if name and flag not in known[name]]
            assert not unknown, f"{file.name} shows {line!r}; {name} has no {', '.join(unknown)}"


def slug(title: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere(file: Path) -> None:
    """Every relative link of a page leads to a file that is there, and to a heading that it has."""
    for link in LINK.findall(FENCE.sub("", file.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        target = (file.parent / path).resolve() if path else file
        assert target.exists(), f"{file.name} links to {link}, which is not there"
        if anchor:
            anchors = {slug(title) for title in sections(target.read_text(encoding="utf-8"))}
            assert anchor in anchors, f"{file.name} links to {link}; {target.name} has no such heading"


def test_changelog_has_this_version() -> None:
    """CHANGELOG.md has an entry for the version of pyproject.toml."""
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    assert f"\n## [{found[1]}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), f"no entry for {found[1]}"
