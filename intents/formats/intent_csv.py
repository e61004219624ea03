"""Intent data sets as FAQs: a CSV with the columns `text,intent`, and optionally `answer`.

An intent plays an entry: its first text is the question, the others are phrasings. Such sets have no answers; where the
column is absent, the intent's name stands in for one, so that clients can act on it.
"""

from pathlib import Path

from intents.entries import OUT_OF_SCOPE, Entry, Header, Located
from intents.errors import FaqError, Problem
from intents.formats.table import TableError, read_table
from intents.normalise import normalise


def read_intent_csv(path: Path) -> tuple[Header, list[Located], tuple[Problem, ...]]:
    """Read a FAQ from a CSV of texts and intents.

    Returns:
        A header, the entries in order of first appearance, and the rows that were left out: empty texts, those
        that belong to another intent already, and those marked as out of scope.

    Raises:
        FaqError: the file is not such a CSV, or nothing is left.
    """
    texts: dict[str, list[str]] = {}
    lines: dict[str, dict[str, int]] = {}
    answers: dict[str, str] = {}
    owners: dict[str, str] = {}
    left_out: list[Problem] = []
    try:
        for line, row in read_table(path, [("text", "intent")]):
            text, intent = row["text"].strip(), row["intent"].strip()
            if not text:
                left_out.append(Problem(path, line, "text", "is empty; the row is left out"))
            elif intent in {"", OUT_OF_SCOPE}:
                left_out.append(Problem(path, line, "intent", "is out of scope; the row is left out"))
            elif (owner := owners.setdefault(normalise(text), intent)) != intent:
                left_out.append(Problem(path, line, "text", f"{text!r} belongs to {owner!r}; the row is left out"))
            else:
                own = texts.setdefault(intent, [])
                at = lines.setdefault(intent, {"": line})
                at["question" if not own else f"phrasings[{len(own) - 1}]"] = line
                own.append(text)
                if answer := row.get("answer", "").strip():
                    answers.setdefault(intent, answer)
    except TableError as exc:
        raise FaqError([Problem(exc.path, exc.line, "", exc.message)]) from exc
    if not texts:
        raise FaqError([Problem(path, 0, "", "has no row with a text and an intent")])
    entries = [
        Entry(id=intent, question=own[0], answer=answers.get(intent, intent), phrasings=tuple(own[1:]))
        for intent, own in texts.items()
    ]
    located = [Located(entry, path, lines[entry.id]) for entry in entries]
    return Header(name=path.stem), located, tuple(left_out)
