"""The documentation is complete and true, as far as a machine can check it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import msgspec
import pytest

from export.bundle import BundleManifest, ModelSource, Parity
from intents.confirm import Confirmer, Joint
from intents.decide import Confidence, DecisionKind, Policy
from intents.entries import Entry, Header, Texts
from intents.errors import FaqError
from intents.figures import Report
from intents.formats import load_faq
from intents.manifest import Calibration, Confirmed, IndexManifest, SearchPlan
from server import close_codes, errors, messages
from server.cli import group
from server.journal.schema import metadata
from server.settings import PREFIX, Settings, read_settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "training/README.md")),
    *sorted(DOCS.glob("*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")

WIRE_TYPES = {
    t.__struct_config__.tag: t for t in (*get_args(messages.ClientMessage), *get_args(messages.ServerMessage))
}
# What stands inside of messages: its section in protocol.md, and what its table calls it.
PARTS = [
    (messages.Limits, "welcome", "field of the limits"),
    (messages.EntryView, "answer", "field of the entry"),
    (messages.CandidateView, "answer", "field of a candidate"),
    (messages.FollowUp, "answer", "field of a follow-up"),
    (messages.Suggestion, "suggestions", "field of a suggestion"),
]


def read(name: str) -> str:
    """The text of a page, by its path in the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def sections(text: str) -> dict[str, str]:
    """Every heading without its backticks, with what stands below it up to the next one of its level or above."""
    prose = FENCE.sub(lambda m: "\n" * m[0].count("\n"), text)  # a # in code is no heading
    lines, found = text.splitlines(), {}
    heads = [(i, len(m[1]), m[2]) for i, line in enumerate(prose.splitlines()) if (m := re.match(r"(#+) (.*)", line))]
    for position, (start, level, title) in enumerate(heads):
        end = next((i for i, other, _ in heads[position + 1 :] if other <= level), len(lines))
        found[title.replace("`", "")] = "\n".join(lines[start + 1 : end])
    return found


def table(text: str, head: str) -> dict[str, list[str]]:
    """The rows of the table whose first column has this head, by each name in backticks in their first cell."""
    found = re.search(rf"^\| {re.escape(head)} \|.*\n((?:\|.*(?:\n|$))+)", text, re.MULTILINE)
    assert found, f"there is no table of {head!r}"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]
    return {name: row for row in cells for name in re.findall(r"`([^`]+)`", row[0])}


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a language."""
    return [block for found, block in FENCE.findall(text) if found == language]


def fields_of(struct: type[msgspec.Struct]) -> list[str]:
    """The names of a struct's fields as they are written in JSON."""
    return [field.encode_name for field in msgspec.structs.fields(struct)]


def commands(parent: click.Group = group, path: str = "faqwire") -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name."""
    for name in parent.list_commands(click.Context(parent)):
        command = parent.get_command(click.Context(parent), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def flags_of(command: click.Command) -> set[str]:
    """The flags that a command takes."""
    return {"--help"}.union(*(parameter.opts for parameter in command.params))


def test_settings_are_all_documented() -> None:
    """settings.md has every setting, and nothing that is none."""
    documented = table(read("docs/settings.md"), "setting")
    missing, extra = Settings.model_fields.keys() - documented, documented.keys() - Settings.model_fields
    assert not missing, f"docs/settings.md has no row for {', '.join(sorted(missing))}"
    assert not extra, f"docs/settings.md has rows for {', '.join(sorted(extra))}, which are no settings"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_setting_is_documented_as_it_is(name: str) -> None:
    """settings.md has a setting's default, environment variable, flag, choices and limits."""
    setting, place = Settings.model_fields[name], f"docs/settings.md: {name}"
    _, kind, default, variable, flag, _ = table(read("docs/settings.md"), "setting")[name]
    match setting.default:
        case Path() | str():
            expected = f'"{setting.default}"'
        case _:
            expected = str(list(setting.default) if isinstance(setting.default, tuple) else setting.default)
    assert default == f"`{expected}`", f"{place}: the default is {expected}, not {default}"
    assert variable == f"`{PREFIX}{name.upper()}`", f"{place}: wrong variable {variable}"
    own = f"--{name.replace('_', '-')}"
    expected = f"`{own}`" if own in flags_of(dict(commands())["faqwire serve"]) else "none"
    assert flag == expected, f"{place}: the flag is {expected}, not {flag}"
    choices = [choice for choice in get_args(setting.annotation) if isinstance(choice, str)]
    assert re.findall(r"`(\w+)`", kind) == choices, f"{place}: the choices are {choices}, not {kind}"
    bounds = [getattr(rule, side, None) for rule in setting.metadata for side in ("ge", "le")]
    limits = [str(bound) for bound in bounds if bound is not None]
    assert set(limits) <= set(kind.split()), f"{place}: the limits are {limits}, not {kind}"


@pytest.mark.parametrize("block", [block for page in PAGES for block in blocks(page.read_text("utf-8"), "toml")])
def test_settings_files_are_read(block: str, tmp_path: Path) -> None:
    """The settings files in the documentation are valid."""
    file = tmp_path / "faqwire.toml"
    file.write_text(block, encoding="utf-8")
    read_settings(file)


@pytest.mark.parametrize(
    ("struct", "section", "head"), [*((struct, tag, "field") for tag, struct in WIRE_TYPES.items()), *PARTS]
)
def test_fields_of_messages_are_documented(struct: type[msgspec.Struct], section: str, head: str) -> None:
    """protocol.md has every field of every message, and no other."""
    text = sections(read("docs/protocol.md")).get(section)
    assert text is not None, f"docs/protocol.md has no section {section}"
    documented = table(text, head).keys() - {"type"}
    missing, extra = set(fields_of(struct)) - documented, documented - set(fields_of(struct))
    assert not missing, f"docs/protocol.md, {section}, {head}: {', '.join(sorted(missing))} is missing"
    assert not extra, f"docs/protocol.md, {section}, {head}: {', '.join(sorted(extra))} is not there"


def test_error_codes_are_documented() -> None:
    """protocol.md has every error code, whether it is retryable, and no other code."""
    documented = table(sections(read("docs/protocol.md"))["Error codes"], "code")
    codes = {error.code: error for error in errors.RequestError.__subclasses__()}
    missing, extra = codes.keys() - documented, documented.keys() - codes
    assert not missing, f"docs/protocol.md lacks the error codes {', '.join(sorted(missing))}"
    assert not extra, f"docs/protocol.md has error codes that are not there: {', '.join(sorted(extra))}"
    wrong = [code for code, error in codes.items() if documented[code][1] != ("yes" if error.retryable else "no")]
    assert not wrong, f"docs/protocol.md is wrong about whether {', '.join(wrong)} is retryable"


def test_close_codes_are_documented() -> None:
    """protocol.md says of every close code whether to connect again, as the Python client goes by it."""
    documented = table(sections(read("docs/protocol.md"))["Close codes"], "code")
    used = {value for name, value in vars(close_codes).items() if name.isupper() and isinstance(value, int)}
    standard = {1000, 1001, 1003, 1007, 1008, 1009, 1011, 1012, 1013}
    missing = {str(code) for code in used | standard} - documented.keys()
    assert not missing, f"docs/protocol.md lacks the close codes {', '.join(sorted(missing))}"
    for code, (_, _, again) in documented.items():
        expected = "yes" if close_codes.may_reconnect(int(code)) else "no"
        assert again.partition(",")[0] == expected, f"docs/protocol.md: after {code} the client says {expected}"


def test_decisions_are_documented() -> None:
    """README.md and protocol.md have every decision."""
    for name, head in (("README.md", "decision"), ("docs/protocol.md", "for the decision")):
        missing = set(get_args(DecisionKind)) - table(read(name), head).keys()
        assert not missing, f"{name} has no row for the decision {', '.join(sorted(missing))}"


@pytest.mark.parametrize(
    "block", [block for name in ("README.md", "docs/protocol.md") for block in blocks(read(name), "json")]
)
def test_json_examples_are_messages(block: str) -> None:
    """Every JSON example decodes as a message; one of the server's has all of its fields and no other."""
    example: dict[str, Any] = msgspec.json.decode(block)
    if WIRE_TYPES[example["type"]] in get_args(messages.ClientMessage):
        assert example.keys() <= {"type", *fields_of(type(messages.decode(block)))}
    else:
        message = messages.decode_server(block)
        assert message is not None
        assert msgspec.json.decode(messages.encode(message)) == example


@pytest.mark.parametrize(
    ("section", "struct"),
    [
        *(("Header", Header), ("Texts", Texts), ("Entry", Entry)),
        *(("Model bundle", struct) for struct in (BundleManifest, ModelSource, Parity)),
        *(("Index", struct) for struct in (IndexManifest, SearchPlan, Calibration, Policy, Confidence)),
        *(("Index", struct) for struct in (Confirmer, Joint, Confirmed)),
    ],
)
def test_fields_of_files_are_documented(section: str, struct: type[msgspec.Struct]) -> None:
    """formats.md names every field of FAQs and manifests in a table."""
    lines = [line for line in sections(read("docs/formats.md"))[section].splitlines() if line.startswith("|")]
    missing = [field for field in fields_of(struct) if not any(f"`{field}`" in line for line in lines)]
    assert not missing, f"docs/formats.md, {section}: {', '.join(missing)} of {struct.__name__} is missing"


def test_defaults_of_texts_are_documented() -> None:
    """formats.md has the words that are said where the operator has written none."""
    documented = table(sections(read("docs/formats.md"))["Texts"], "field")
    for name, default in msgspec.structs.asdict(Texts()).items():
        assert documented[name][1] == f"`{default}`", f"docs/formats.md: the default of texts.{name} is {default!r}"


@pytest.mark.parametrize("name", ["asks", "feedback"])
def test_columns_of_the_journal_are_documented(name: str) -> None:
    """journal.md has every column of the journal's tables, and no other."""
    documented = table(sections(read("docs/journal.md"))[name], "column")
    assert list(documented) == [column.name for column in metadata.tables[name].c]


def test_figures_are_documented() -> None:
    """evaluation.md has every figure of `faqwire eval` by its JSON key."""
    text = sections(read("docs/evaluation.md"))["faqwire eval"]
    missing = [name for name in fields_of(Report) if f"| `{name}` |" not in text]
    assert not missing, f"docs/evaluation.md lacks {', '.join(missing)}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page.read_text("utf-8"), "yaml")])
def test_faqs_load(page: Path, tmp_path: Path) -> None:
    """The FAQs in the documentation load, those aside that are meant to be wrong; a header loads beside entries."""
    whole = [b for b in blocks(page.read_text("utf-8"), "yaml") if "# wrong" not in b]
    for number, block in enumerate(whole):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        (folder / "shown.yaml").write_text(block, encoding="utf-8")
        if "entries:" not in block:
            beside = "entries:\n  - {id: a, question: What is a?, answer: A letter.}\n"
            (folder / "beside.yaml").write_text(beside, encoding="utf-8")
        load_faq(folder)
    assert whole or page.name not in {"README.md", "formats.md"}, f"{page.name} shows no FAQ"


def test_wrong_faqs_have_the_errors_that_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The errors under the wrong FAQs of formats.md are those that they have."""
    monkeypatch.chdir(tmp_path)
    text = sections(read("docs/formats.md"))["Errors"]
    assert blocks(text, "yaml")
    for block, said in zip(blocks(text, "yaml"), blocks(text, "text"), strict=True):
        Path("faq.yaml").write_text(block, encoding="utf-8")
        with pytest.raises(FaqError) as caught:
            load_faq(Path("faq.yaml"))
        assert str(caught.value).splitlines() == said.splitlines()


def test_commands_are_in_the_readme() -> None:
    """README.md has a row for every command."""
    documented = table(read("README.md"), "command")
    missing = [name for name, _ in commands() if not any(f"{row} ".startswith(f"{name} ") for row in documented)]
    assert not missing, f"README.md has no row for {', '.join(missing)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_are_possible(page: Path) -> None:
    """Every `faqwire` command line in the documentation has a command and flags that are there."""
    known = dict(commands())
    for line in re.findall(r"\bfaqwire (?:index )?[a-z]+ [^`\n]*", page.read_text(encoding="utf-8")):
        flags = re.findall(r"(?<= )--?[a-z][\w-]*", line.partition('"')[0])
        name = next((name for name in known if line.startswith(f"{name} ")), None)
        assert name or not flags, f"{page.name} shows {line!r}, which is no command"
        unknown = set(flags) - flags_of(known[name]) if name else set()
        assert not unknown, f"{page.name} shows {line!r}; {name} has no {', '.join(sorted(unknown))}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link leads to a file that is there, and to a heading that it has."""
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name} links to {link}, which is not there"
        # As GitHub makes anchors of headings.
        titles = sections(target.read_text(encoding="utf-8")) if anchor else {}
        anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not anchor or anchor in anchors, f"{page.name} links to {link}; {target.name} has no such heading"


def test_changelog_has_this_version() -> None:
    """CHANGELOG.md has an entry for the version of pyproject.toml."""
    found = re.search(r'^version = "(.+)"$', read("pyproject.toml"), re.MULTILINE)
    assert found
    assert f"\n## [{found[1]}] - " in read("CHANGELOG.md"), f"CHANGELOG.md has no entry for {found[1]}"
