"""`faqwire schema`: the protocol's schemas, for programs and those who write them."""

from pathlib import Path

import click

from server.cli import options


@click.command
@click.option(
    "-o", "--output", type=options.PATH, default=Path("docs"), show_default=True, help="Folder to write them into."
)
def command(output: Path) -> None:
    """Write the schemas of the websocket protocol: asyncapi.json (AsyncAPI 3) and schema.json (JSON Schema 2020-12)."""
    from server.cli.console import say
    from server.schema import as_text, asyncapi, json_schema

    output.mkdir(parents=True, exist_ok=True)
    for name, document in (("asyncapi.json", asyncapi()), ("schema.json", json_schema())):
        path = output / name
        path.write_text(as_text(document), encoding="utf-8")
        say(f"wrote {path}")
