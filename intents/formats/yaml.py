"""faqwire's own FAQ format: YAML, read so that every problem has its file, line and field.

The document is read as nodes, not as values: nodes know their lines, and a plain scalar stays the text that the
operator wrote. YAML 1.1 would turn the phrasing `no` into False and `12:30` into 750.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec
import yaml

from intents.entries import Entry, EntryKind, Header, Located, Texts
from intents.errors import FaqError, Problem

# libyaml is several times faster and is in every wheel of PyYAML; a build without it still works.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL = "tag:yaml.org,2002:null"
_WORDS = {"array": "a list", "object": "a mapping", "str": "text", "null": "nothing", "bool": "true or false"}
_AT = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")

_MAX_DEPTH = 32

T = TypeVar("T", bound=msgspec.Struct)


def read_yaml(files: Sequence[Path]) -> tuple[Header, list[Located]]:
    """Read one FAQ out of one or more files; only one of them may have the header's fields.

    Raises:
        FaqError: with every problem found in any of them.
    """
    problems: list[Problem] = []
    located: list[Located] = []
    headers: dict[Path, Header] = {}
    for file in files:
        reader = _Reader(file)
        header, entries = reader.read(alone=len(files) == 1)
        problems += reader.problems
        located += entries
        if header is not None:
            headers[file] = header
    first, *others = headers or [None]
    problems += [Problem(f, 1, "", f"has a header, and {first} has one already; keep one of them") for f in others if f]
    if not located and not problems:
        problems.append(Problem(files[0], 0, "entries", "is empty; a FAQ has at least one entry"))
    if problems:
        raise FaqError(problems)
    return (headers[first] if first else Header()), located


def _written(value: Any) -> Any:
    """A mapping without its empty fields: one that is named and left empty is as good as absent."""
    if not isinstance(value, dict):
        return value
    return {key: _written(item) for key, item in value.items() if item is not None}


def _too_deep(text: str) -> int | None:
    """The line on which the document is nested deeper than any FAQ, or None.

    Composing nodes recurses, in C without a guard: a file of opening brackets would end the process.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                return event.start_mark.line + 1 if event.start_mark else 0
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return None


@dataclass
class _Reader:
    """Reads one file; what is wrong is collected, so that the operator sees all of it at once."""

    file: Path
    problems: list[Problem] = field(default_factory=list)
    _visited: set[int] = field(default_factory=set)

    def read(self, *, alone: bool) -> tuple[Header | None, list[Located]]:
        """The file's header, if it has one, and its entries; a file beside others may have either alone."""
        root = self._parse()
        if root is None:
            return None, []
        if not isinstance(root, yaml.MappingNode):
            self._report(root, "", "is not a FAQ; a mapping with the key `entries` is expected")
            return None, []
        fields = dict(self._pairs(root, ""))
        entries = fields.pop("entries", None)
        header = self._header(fields) if fields else None
        if entries is None and (alone or header is None):
            self._report(root, "entries", "is missing; a FAQ has a list of entries")
        elif entries is not None and not isinstance(entries, yaml.SequenceNode):
            self._report(entries, "entries", "is not a list; write each entry as an item that begins with `- id:`")
        elif entries is not None:
            return header, [one for node in entries.value if (one := self._entry(node)) is not None]
        return header, []

    def _parse(self) -> Any:
        text = ""
        try:
            text = self.file.read_text(encoding="utf-8-sig")
            if (line := _too_deep(text)) is not None:
                self.problems.append(Problem(self.file, line, "", "is nested too deeply to be a FAQ"))
                return None
            root = yaml.compose(text, Loader=_LOADER)
        except UnicodeDecodeError as exc:
            self.problems.append(Problem(self.file, 0, "", f"is not UTF-8 ({exc.reason} at byte {exc.start})"))
        except OSError as exc:
            self.problems.append(Problem(self.file, 0, "", f"cannot be read ({exc.strerror})"))
        except yaml.MarkedYAMLError as exc:
            line = exc.problem_mark.line + 1 if exc.problem_mark else 0
            self.problems.append(Problem(self.file, line, "", f"is not valid YAML: {exc.problem or exc}"))
        except yaml.reader.ReaderError as exc:
            line = text.count("\n", 0, text.find(chr(exc.character))) + 1
            sentence = f"is not valid YAML: {exc.reason} (U+{exc.character:04X})"
            self.problems.append(Problem(self.file, line, "", sentence))
        else:
            if root is None:
                self.problems.append(Problem(self.file, 0, "", "is empty; a FAQ has a list of entries"))
            return root
        return None

    def _header(self, fields: dict[str, Any]) -> Header | None:
        lines = {key: node.start_mark.line + 1 for key, node in fields.items()}
        values = {key: self._plain(node, key, lines) for key, node in fields.items()}
        texts = values.get("texts")
        known = self._known(texts, Texts, lines, "texts.") if isinstance(texts, dict) else True
        known = self._known(values, Header, lines, "") and known
        return self._convert(_written(values), Header, lines) if known else None

    def _entry(self, node: Any) -> Located | None:
        lines: dict[str, int] = {}
        value = self._plain(node, "", lines)
        if not isinstance(value, dict):
            self._report(node, "entries", "has an item that is not an entry; an entry begins with `- id:`")
            return None
        if not self._known(value, Entry, lines, ""):
            return None
        entry = self._convert(_written(value), Entry, lines)
        return None if entry is None else Located(entry, self.file, lines)

    def _plain(self, node: Any, path: str, lines: dict[str, int]) -> Any:
        """A node as text, list, dict or None; `lines` learns where each path begins."""
        lines[path] = node.start_mark.line + 1
        if not isinstance(node, yaml.ScalarNode):
            # An alias is the same node again; a few lines of nested ones would unfold into gigabytes.
            if id(node) in self._visited:
                self._report(node, path, "is used again by an alias (`*`); write it out instead")
                return None
            self._visited.add(id(node))
        match node:
            case yaml.ScalarNode():
                return None if node.tag == _NULL else node.value
            case yaml.SequenceNode():
                return [self._plain(child, f"{path}[{i}]", lines) for i, child in enumerate(node.value)]
            case _:
                prefix = f"{path}." if path else ""
                return {key: self._plain(child, prefix + key, lines) for key, child in self._pairs(node, prefix)}

    def _pairs(self, node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            if name in seen:
                self._report(key, prefix + name, "stands here twice; keep one")
            else:
                seen.add(name)
                yield name, value

    def _known(self, value: dict[str, Any], struct: type[msgspec.Struct], lines: dict[str, int], prefix: str) -> bool:
        fields = msgspec.structs.fields(struct)
        names = [f.name for f in fields]
        wrong = [
            Problem(self.file, lines[prefix + key], prefix + key, f"is not a known field; known are {', '.join(names)}")
            for key in value
            if key not in names
        ]
        here = min(lines.values())
        wrong += [
            Problem(self.file, here, prefix + f.name, "is missing")
            for f in fields
            if f.required and value.get(f.name) is None
        ]
        self.problems += wrong
        return not wrong

    def _convert(self, value: Any, struct: type[T], lines: dict[str, int]) -> T | None:
        try:
            return msgspec.convert(value, struct, strict=False)
        except msgspec.ValidationError as exc:
            sentence = str(exc)
            found = _AT.search(sentence)
            path = found["path"] if found else ""
            sentence = _AT.sub("", sentence)
            sentence = sentence.replace("Invalid RFC3339 encoded date", "is not a date; write it as YYYY-MM-DD")
            if path == "kind":
                sentence += f"; it is one of {', '.join(get_args(EntryKind))}"
            sentence = re.sub(r"`(\w+)`", lambda m: _WORDS.get(m[1], m[1]), sentence)
            line = lines.get(path) or min(lines.values())
            self.problems.append(Problem(self.file, line, path, sentence[:1].lower() + sentence[1:]))
            return None

    def _report(self, node: Any, path: str, message: str) -> None:
        self.problems.append(Problem(self.file, node.start_mark.line + 1, path, message))
