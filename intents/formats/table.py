"""Rows of a CSV file with a header, each with its line, and clear errors for what is not one."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path


class TableError(Exception):
    """A file is not the table that was expected; the reader turns this into its own error."""

    def __init__(self, path: Path, line: int, message: str) -> None:
        self.path, self.line, self.message = path, line, message
        super().__init__(f"{path}:{line}: {message}" if line else f"{path}: {message}")


def read_table(path: Path, any_of: Sequence[Sequence[str]]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line and the fields of every row; fields that are short of the header are "".

    Args:
        path: a CSV file, UTF-8, with a header row.
        any_of: sets of columns, of which the header must have one whole set.

    Raises:
        TableError: the file is missing, empty, not UTF-8, not CSV, or lacks the columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(filter(None, reader), [])]
            if not header:
                raise TableError(path, 0, "is empty; a header row is expected")
            _check(path, reader.line_num, header, any_of)
            line = reader.line_num + 1
            for row in reader:
                if len(row) > len(header):
                    raise TableError(path, line, f"has {len(row)} fields under {len(header)} columns; quote the commas")
                if row:
                    yield line, dict(zip(header, row + [""] * (len(header) - len(row)), strict=True))
                line = reader.line_num + 1
    except FileNotFoundError:
        raise TableError(path, 0, "does not exist") from None
    except OSError as exc:
        raise TableError(path, 0, f"cannot be read ({exc.strerror})") from exc
    except UnicodeDecodeError as exc:
        raise TableError(path, 0, f"is not UTF-8 ({exc.reason} at byte {exc.start})") from exc
    except csv.Error as exc:
        raise TableError(path, reader.line_num, f"is not valid CSV: {exc}") from exc


def _check(path: Path, line: int, header: Sequence[str], any_of: Sequence[Sequence[str]]) -> None:
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise TableError(path, line, f"has the column `{twice[0]}` twice; keep one")
    if not any(set(columns) <= set(header) for columns in any_of):
        wanted = " or ".join("`" + ",".join(columns) + "`" for columns in any_of)
        raise TableError(path, line, f"has the columns {header}; {wanted} are needed")
