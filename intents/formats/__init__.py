"""Readers of FAQ files; `load_faq` picks one by the path."""

import os
from dataclasses import dataclass
from pathlib import Path

from intents.entries import Faq, assemble
from intents.errors import FaqError, Problem
from intents.formats.intent_csv import read_intent_csv
from intents.formats.yaml import read_yaml


@dataclass(frozen=True)
class Loaded:
    """A FAQ, and what was left out of it on the way in."""

    faq: Faq
    left_out: tuple[Problem, ...] = ()


def load_faq(path: Path) -> Loaded:
    """Read a FAQ: a YAML file, a folder of them, or a CSV with the columns `text,intent`.

    Raises:
        FaqError: it is not there, cannot be read, or breaks a rule; all problems at once.
    """
    if path.is_dir():
        files = _files_below(path)
        if not files:
            raise FaqError([Problem(path, 0, "", "has no .yaml file; name a FAQ file, or a folder of them")])
        return Loaded(assemble(*read_yaml(files)))
    if not path.exists():
        raise FaqError([Problem(path, 0, "", "does not exist; name a FAQ file (.yaml or .csv), or a folder of them")])
    match path.suffix.lower():
        case ".yaml" | ".yml":
            return Loaded(assemble(*read_yaml([path])))
        case ".csv":
            header, located, left_out = read_intent_csv(path)
            return Loaded(assemble(header, located), left_out)
        case _:
            raise FaqError([Problem(path, 0, "", "is not a FAQ by its name; faqwire reads .yaml, .yml and .csv")])


def _files_below(folder: Path) -> list[Path]:
    """YAML files anywhere below a folder, hidden ones aside, in the order of their paths."""

    def refuse(problem: OSError) -> None:
        raise FaqError([Problem(Path(problem.filename), 0, "", f"cannot be read ({problem.strerror})")])

    files = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(place, name) for name in names if name.lower().endswith((".yaml", ".yml")) and name[0] != "."]
    return sorted(files)
