"""Guards what is imported: whoever serves meets no torch, and the command's help meets nothing heavy at all."""

import pkgutil
import subprocess
import sys

import pytest

import server

MAKERS = {"torch", "transformers", "optimum", "sentence_transformers", "sklearn", "onnx", "scipy", "peft"}
HEAVY = MAKERS | {"onnxruntime", "numpy", "tokenizers", "annoy", "websockets", "pydantic", "rich", "sqlalchemy"}

SERVING = [
    module.name
    for module in pkgutil.walk_packages(server.__path__, "server.")
    # Alembic runs what is in `migrations`, in a place that it makes for it.
    if not module.name.startswith(("server.cli", "server.journal.migrations."))
]


def imported_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after this code."""
    code += "\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_the_server_imports_no_torch() -> None:
    """All modules of the server but the command line import nothing that makes models or indexes, nor any extra."""
    assert {"server.app", "server.engine", "server.pipeline"} <= set(SERVING)
    assert not imported_by("import " + ", ".join(SERVING)) & (MAKERS | {"opentelemetry", "requests", "jwt"})


@pytest.mark.parametrize("command", ["serve", "ask", "index", "journal"])
def test_serving_commands_import_no_torch(command: str) -> None:
    """Commands that serve or look at what is there do without what makes it."""
    assert not imported_by(f"import server.cli.{command}") & MAKERS


def test_settings_import_no_runtime() -> None:
    """Whoever only reads settings loads neither ONNX Runtime nor a tokenizer."""
    assert not imported_by("import server.settings") & {"onnxruntime", "tokenizers", "annoy"}


def test_the_command_line_imports_next_to_nothing() -> None:
    """`faqwire --help` answers at once because nothing heavy is imported for it."""
    assert not imported_by("import server.cli") & HEAVY
    show_help = """
import contextlib, io
from server.cli import group
with contextlib.redirect_stdout(io.StringIO()):
    group(["--help"], standalone_mode=False)
"""
    assert not imported_by(show_help) & HEAVY
