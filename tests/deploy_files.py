"""What tests of `deploy/` share: its files, read."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from server.settings import PREFIX
from tests.test_docs import read

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
IMAGES = [DEPLOY / "Dockerfile", DEPLOY / "Dockerfile.cuda"]
FILES = [file for file in sorted(DEPLOY.rglob("*")) if file.is_file() and file.suffix not in {".py", ".pyc", ".txt"}]
PROJECT = tomllib.loads(read("pyproject.toml"))


def documents(*patterns: str) -> list[dict[str, Any]]:
    """All YAML documents in files of these patterns."""
    files = sorted(file for pattern in patterns for file in DEPLOY.glob(pattern))
    assert files
    return [part for file in files for part in yaml.safe_load_all(file.read_text(encoding="utf-8"))]


def compose() -> dict[str, Any]:
    """What compose.yaml says, by service."""
    (whole,) = documents("compose.yaml")
    services: dict[str, Any] = whole["services"]
    return services


def kubernetes(kind: str) -> list[dict[str, Any]]:
    """The manifests of a kind."""
    return [part for part in documents("kubernetes/*/*.yaml") if part.get("kind") == kind and "metadata" in part]


def pods() -> list[dict[str, Any]]:
    """The specifications of all pods."""
    return [part["spec"]["template"]["spec"] for part in (*kubernetes("Deployment"), *kubernetes("Job"))]


def instructions(image: Path, word: str) -> list[str]:
    """What follows an instruction of a Dockerfile, wherever it stands; continued lines are joined."""
    text = re.sub(r"\\\n\s*", "", image.read_text(encoding="utf-8"))
    return re.findall(rf"^{word} (.*)$", text, re.MULTILINE)


def unit() -> dict[str, str]:
    """What the systemd unit says; of what is said twice, the last."""
    text = (DEPLOY / "systemd" / "faqwire.service").read_text(encoding="utf-8")
    return dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z]\w+=", line))


def seconds(text: str) -> float:
    """A duration as Docker and nginx write it."""
    assert text.endswith("s")
    return float(text.removesuffix("s"))


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every call of the command that the files make or tell to make, with where it is."""
    yield "faqwire.service", unit()["ExecStart"].split()[1:]
    for image in IMAGES:
        for arguments in instructions(image, "CMD"):
            yield image.name, json.loads(arguments)
    for pod in pods():
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            yield container["name"], container["args"]
    for line in re.findall(r"^#.* run --rm tools (.*)$", (DEPLOY / "compose.yaml").read_text("utf-8"), re.MULTILINE):
        yield "compose.yaml", line.split()


def variables() -> dict[str, dict[str, str]]:
    """The environments that servers get, by where they are written."""
    settings = (DEPLOY / "kubernetes" / "servers" / "settings.env").read_text(encoding="utf-8").splitlines()
    found = {"settings.env": dict(line.split("=", 1) for line in settings if line and not line.startswith("#"))}
    found["compose.yaml"] = {
        name: re.sub(r"\$\{\w+:-(\w+)\}", r"\1", value) for name, value in compose()["faqwire"]["environment"].items()
    }
    for image in IMAGES:
        pairs = [pair.split("=", 1) for line in instructions(image, "ENV") for pair in line.split()]
        found[image.name] = {name: value for name, value in pairs if name.startswith(PREFIX)}
    return found
