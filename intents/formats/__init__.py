"""Readers of FAQ files; `load_faq` picks one by the path."""

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
        found = (p for p in path.rglob("*") if p.suffix.lower() in {".yaml", ".yml"} and p.is_file())
        files = sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(path).parts))
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
