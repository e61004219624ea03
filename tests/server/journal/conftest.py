"""What the journal's tests share: a new SQLite file, and a PostgreSQL of their own where the machine has one."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from server.journal.database import place_of
from server.journal.store import Store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a journal is to be; nothing is there yet."""
    return tmp_path / "var" / "journal.sqlite"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The folder of a running PostgreSQL's socket."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    folders = [Path(found).resolve().parent for found in [shutil.which("pg_ctl")] if found]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    tools = next((folder for folder in folders if (folder / "initdb").exists()), None)
    if tools is None:
        pytest.skip("PostgreSQL is not installed")
    user = None  # it does not run as root
    if os.geteuid() == 0:
        try:
            user = pwd.getpwnam("postgres").pw_name
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    # A socket's path may have about a hundred characters: not where pytest keeps its folders.
    with tempfile.TemporaryDirectory() as folder:
        if user is not None:
            shutil.chown(folder, user)

        def run(tool: str, *args: str) -> None:
            subprocess.run(
                [tools / tool, "-D", f"{folder}/data", *args], user=user, cwd=folder, check=True, capture_output=True
            )

        run("initdb", "--auth=trust", "--username=postgres", "--no-sync")
        run("pg_ctl", "-w", "-l", f"{folder}/log", "-o", f"-c listen_addresses= -c fsync=off -k {folder}", "start")
        try:
            yield folder
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")


_numbers = count()


@pytest.fixture(params=["sqlite", "postgresql"])
def journal(request: pytest.FixtureRequest) -> str:
    """The setting of a new journal, in each kind of database."""
    if request.param == "sqlite":
        found: Path = request.getfixturevalue("file")
        return str(found)
    import psycopg

    host: str = request.getfixturevalue("postgresql")
    name = f"journal_{next(_numbers)}"
    with psycopg.connect(host=host, user="postgres", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"postgresql://postgres@/{name}?host={host}"


@pytest.fixture
def store(journal: str) -> Iterator[Store]:
    """A new journal, opened."""
    store = Store(place_of(journal))
    store.open()
    yield store
    store.close()
