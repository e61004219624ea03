"""The files in `deploy/` fit faqwire and each other: settings, ports, paths, times, users."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import click
import pytest

from server.cli import group
from server.settings import PREFIX, Settings, read_settings
from tests.conftest import ServerFactory
from tests.deploy_files import (
    DEPLOY,
    FILES,
    IMAGES,
    PROJECT,
    ROOT,
    command_lines,
    compose,
    documents,
    instructions,
    kubernetes,
    pods,
    seconds,
    unit,
    variables,
)
from tests.server.raw import get
from tests.test_docs import read, sections, table

DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_variables_are_settings(file: Path) -> None:
    """A variable of faqwire that a file names, also in a comment, is a setting's; another one would stop the server."""
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", file.read_text(encoding="utf-8")))
    unknown = {name for name in named if name.removeprefix(PREFIX).lower() not in Settings.model_fields}
    assert not unknown, f"{file.name} names {', '.join(sorted(unknown))}"


def test_nothing_is_left_out_of_the_repository() -> None:
    """No file or folder has a name that .gitignore leaves out."""
    ignored = {line.rstrip("/") for line in read(".gitignore").splitlines()}
    assert not [str(file) for file in FILES if ignored & set(file.relative_to(DEPLOY).parts)]


@pytest.mark.parametrize("place", variables())
def test_environments_are_accepted(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their values are ones that the settings take."""
    given = variables()[place]
    assert given
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    read_settings()


def test_the_settings_file_is_accepted() -> None:
    """So is the file that goes with the unit: it trusts a proxy of the same machine, and lists pages."""
    settings = read_settings(DEPLOY / "systemd" / "faqwire.toml")
    assert settings.trusted_proxies == ("127.0.0.1", "::1")
    assert settings.allowed_origins
    assert f"/var/lib/{unit()['StateDirectory']}/" in str(settings.journal)
    assert unit()["ExecStart"].split()[3] == "/etc/faqwire/faqwire.toml"


@pytest.mark.parametrize(("place", "arguments"), list(command_lines()))
def test_commands_are_possible(place: str, arguments: list[str]) -> None:
    """Every command that is called is there, with its flags."""
    if arguments == ["--help"]:
        return
    command = group.get_command(click.Context(group), arguments[0])
    assert command is not None, f"{place}: there is no command {arguments[0]}"
    command.make_context(arguments[0], arguments[1:])


def test_ports_agree() -> None:
    """Where the server listens by default is where everybody looks for it."""
    port, metrics = DEFAULTS["port"], DEFAULTS["metrics_port"]
    for image in IMAGES:
        assert instructions(image, "EXPOSE") == [str(port)]
        assert f"or {port})" in instructions(image, "HEALTHCHECK")[0]
    assert compose()["faqwire"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert compose()["caddy"]["environment"]["CHAT_UPSTREAM"] == f"faqwire:{port}"
    (scraping,) = documents("prometheus/prometheus.yml")
    assert scraping["scrape_configs"][0]["static_configs"] == [{"targets": [f"faqwire:{metrics}"]}]
    (server,) = kubernetes("Deployment")
    ports = {p["name"]: p["containerPort"] for p in server["spec"]["template"]["spec"]["containers"][0]["ports"]}
    assert ports == {"websocket": port, "metrics": metrics}
    annotations = server["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(metrics)
    (service,) = kubernetes("Service")
    assert service["spec"]["ports"] == [{"name": "websocket", "port": port, "targetPort": "websocket"}]
    assert f"server 127.0.0.1:{port};" in (DEPLOY / "nginx" / "site.conf").read_text(encoding="utf-8")
    assert f"{{$CHAT_UPSTREAM:127.0.0.1:{port}}}" in (DEPLOY / "caddy" / "Caddyfile").read_text(encoding="utf-8")
    assert read_settings(DEPLOY / "systemd" / "faqwire.toml").port == port


async def test_probes_are_answered(start_server: ServerFactory) -> None:
    """What probes ask for is there, and says that a server which answers is well."""
    (container,) = kubernetes("Deployment")[0]["spec"]["template"]["spec"]["containers"]
    probes = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert probes == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/healthz"}
    async with start_server() as server:
        for path in probes.values():
            assert (await get(server, path)).status == 200


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
async def test_healthcheck(image: Path, start_server: ServerFactory) -> None:
    """The image's own check passes where a server is well, and fails where there is none."""
    program, *arguments = json.loads(instructions(image, "HEALTHCHECK")[0].partition("CMD ")[2])
    assert program == "python"

    async def status(port: str) -> int:
        environment = {**os.environ, "FAQWIRE_PORT": port}
        quiet = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environment, stderr=quiet)
        return await process.wait()

    async with start_server() as server:
        port = server.url.rstrip("/").rpartition(":")[2]
        assert await status(port) == 0
    assert await status(port) == 1


def test_there_is_time_to_stop() -> None:
    """Whoever stops a server waits for longer than it may take."""
    least = DEFAULTS["drain_seconds"] + 5
    assert seconds(compose()["faqwire"]["stop_grace_period"]) >= least
    assert float(unit()["TimeoutStopSec"]) >= least
    pod = kubernetes("Deployment")[0]["spec"]["template"]["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] - pause >= least


def test_proxies_wait_longer_than_the_server() -> None:
    """It is the server that ends connections nobody uses, with its own close code, and no proxy before it."""
    nginx = (DEPLOY / "nginx" / "faqwire.conf").read_text(encoding="utf-8")
    timeouts = dict(re.findall(r"^\s*(proxy_(?:read|send)_timeout) (\w+);$", nginx, re.MULTILINE))
    assert timeouts.keys() == {"proxy_read_timeout", "proxy_send_timeout"}
    idle = DEFAULTS["idle_seconds"]
    assert min(map(seconds, timeouts.values())) > idle + min(idle / 10, 10)
    assert "timeout" not in (DEPLOY / "caddy" / "Caddyfile").read_text(encoding="utf-8")  # it has none by itself
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in nginx


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_images(image: Path) -> None:
    """An image serves as nobody in particular, has what serving needs, and runs on CPUs other than its builder's."""
    assert set(instructions(image, "USER")) == {"10001:10001"}
    assert instructions(image, "STOPSIGNAL") == ["SIGTERM"]
    assert instructions(image, "ENTRYPOINT") == ['["faqwire"]']
    assert image.read_text(encoding="utf-8").rstrip().endswith('CMD ["serve"]')
    (annoy,) = re.findall(r"^export (ANNOY_COMPILER_ARGS=.*)$", read("docs/install.md"), re.MULTILINE)
    assert any(annoy in line for line in instructions(image, "ENV"))
    installs = [line for line in instructions(image, "RUN") if "--no-binary annoy -c constraints.txt" in line]
    serving = next(line for line in installs if "${EXTRAS}" in line)
    (chosen,) = re.findall(r"^ARG EXTRAS=(.*)$", image.read_text(encoding="utf-8"), re.MULTILINE)
    extras = {*chosen.split(","), *re.findall(r"\.\[(\w+),", serving)}
    assert extras <= PROJECT["project"]["optional-dependencies"].keys() - {"build", "export"}


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_what_is_copied_is_let_in(image: Path) -> None:
    """What an image is made of is there, and not held back by .dockerignore; every package of the wheel is copied."""
    let_in = {line.removeprefix("!") for line in read(".dockerignore").splitlines() if line.startswith("!")}
    assert "*" in read(".dockerignore").splitlines()
    copied = {
        name for line in instructions(image, "COPY") if not line.startswith("--from") for name in line.split()[:-1]
    }
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(wheel) <= copied


def test_versions_agree() -> None:
    """Images are named after the version that they are built from."""
    version = PROJECT["project"]["version"]
    ours = [service["image"] for service in compose().values() if service["image"].startswith("faqwire")]
    assert {image.partition(":")[2] for image in ours} == {version}
    for part in documents("kubernetes/**/kustomization.yaml"):
        assert {image["newTag"] for image in part.get("images", ())} <= {version}
    names = {container["image"] for pod in pods() for container in pod["containers"]}
    assert names == {image.partition(":")[0] for image in ours}


def test_compose() -> None:
    """Nothing but TLS is reached from outside, one proxy is trusted, and all that is mounted is there."""
    services = compose()
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        outside = [port for port in service.get("ports", ()) if not port.startswith("127.0.0.1:")]
        assert not outside or (name, outside) == ("caddy", ["80:80", "443:443"])
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert not source.startswith(".") or (DEPLOY / source).exists(), volume
    (trusted,) = json.loads(services["faqwire"]["environment"]["FAQWIRE_TRUSTED_PROXIES"])
    assert trusted == services["caddy"]["networks"]["edge"]["ipv4_address"]


def test_alerts() -> None:
    """Alerts ask for metrics and labels that there are, and every one of them has a test in which it fires."""
    (rules,), (tests,) = documents("prometheus/*.rules.yml"), documents("prometheus/*.rules.test.yml")
    alerts = {rule["alert"]: rule["expr"] for rule in rules["groups"][0]["rules"]}
    documented = table(sections(read("docs/metrics.md"))["All metrics"], "metric")
    text = read("docs/metrics.md") + read("docs/protocol.md") + read("README.md")
    for alert, expression in alerts.items():
        for name in re.findall(r"\bfaqwire_\w+", expression):
            assert name.removesuffix("_count") in documented, f"{alert}: there is no metric {name}"
        for values in re.findall(r'(?:reason|code|fate|decision)=~?"([^"]+)"', expression):
            assert all(f"| `{value}` |" in text for value in values.split("|")), f"{alert}: {values}"
    fired = str(tests["tests"][-1]["promql_expr_test"])
    assert {alert for alert in alerts if f'alertname="{alert}"' in fired} == alerts.keys()


def test_grafana() -> None:
    """Grafana finds its dashboards where compose mounts them, and Prometheus where it runs; dashboards are JSON."""
    (source,) = documents("grafana/provisioning/datasources/*.yaml")
    host, _, port = source["datasources"][0]["url"].removeprefix("http://").partition(":")
    assert compose()[host]["ports"] == [f"127.0.0.1:{port}:{port}"]
    (provider,) = documents("grafana/provisioning/dashboards/*.yaml")
    assert f"./grafana:{provider['providers'][0]['options']['path']}:ro" in compose()["grafana"]["volumes"]
    for dashboard in (DEPLOY / "grafana").glob("*.json"):
        assert json.loads(dashboard.read_text(encoding="utf-8"))["panels"]
