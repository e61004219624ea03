"""Guards `faqwire serve --workers` as processes: one port, one page, and a server that outlives its workers."""

import asyncio
import json
import os
import re
import shutil
import signal
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from intents.store import use_version
from server.client import Client
from server.errors import ClientError
from server.messages import Accepted, Answer
from tests.server.cli.site import Process, Site, add_version
from tests.server.raw import UNSEEN

SECOND = "20991231T235959000Z-00000000"
# For visitors that never pause.
UNHURRIED = "messages_per_second = 1000000\nmessage_burst = 1000000\nmax_connections_per_address = 1000\n"


class Workers:
    """A running server of several processes.

    Attributes:
        url: where it listens.
        metrics: the page of all workers.
        pids: the workers', by number; the latest ones that were seen to listen.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.url, self.metrics = "", ""
        self.pids: dict[int, int] = {}
        self.events: list[dict[str, Any]] = []

    def until(self, event: str, **fields: object) -> dict[str, Any]:
        """Read the log up to an event."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            said: dict[str, Any] = json.loads(line)
            self.events.append(said)
            if said["event"] == "worker started":
                self.pids[said["worker"]] = said["pid"]
            if said["event"] == event and fields.items() <= said.items():
                return said
        raise AssertionError(f"the server ended without {event!r}: {self.events}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop it, and give the exit status."""
        self.process.send_signal(number)
        _, rest = self.process.communicate()
        self.events += [json.loads(line) for line in rest.splitlines()]
        return self.process.returncode

    def value(self, name: str, **labels: str) -> float:
        """What the metrics page says."""
        page = urllib.request.urlopen(self.metrics).read().decode()  # noqa: S310 its own
        wanted = "{" + ",".join(f'{label}="{value}"' for label, value in sorted(labels.items())) + "}"
        found = re.search(rf"^faqwire_{name}{re.escape(wanted) if labels else ''} (\S+)$", page, re.MULTILINE)
        assert found, page
        return float(found[1])


@contextmanager
def serving(site: Site, *args: str, workers: int = 2) -> Iterator[Workers]:
    """A server whose workers all listen."""
    with site.start("serve", "--port", "0", "--workers", str(workers), *args) as process:
        running = Workers(process)
        listening = running.until("supervising")
        running.url, running.metrics = listening["url"], listening["metrics"]
        for _ in range(workers - 1):
            running.until("worker ready")
        yield running


def test_one_server(site: Site) -> None:
    """Workers share a port and a page, answer alike, change over together, and stop together."""
    with serving(site) as running:
        assert running.process.stdout is not None
        assert running.process.stdout.readline() == f"faqwire is listening on {running.url}\n"
        asked = site.run("ask", "--url", running.url, "--json", stdin=f"{UNSEEN}\nWhere is my order?\n")
        answers = [json.loads(line) for line in asked.stdout.splitlines()]
        assert [answer["type"] for answer in answers] == ["answer", "answer"]
        version = answers[0]["index"]
        assert running.value("messages_total", decision=answers[0]["decision"]) == 2
        assert running.value("index_in_use", version=version) == 2
        assert running.value("workers", state="running") == 2
        add_version(site, SECOND)
        assert site.run("index", "use", SECOND).returncode == 0
        for _ in range(2):
            running.until("reloaded", index=SECOND)
        running.process.send_signal(signal.SIGHUP)
        for _ in range(2):
            running.until("nothing has changed", index=SECOND)
        assert running.value("index_in_use", version=SECOND) == 2
        assert running.value("index_in_use", version=version) == 0
        assert running.end() == 0
    assert {event["worker"] for event in running.events if event["event"] == "draining"} == {1, 2}
    assert not list((site.folder / "tmp").iterdir())


class Visitor:
    """Somebody who asks without a pause.

    Attributes:
        first: the connection that the client had at first.
        answered: how many answers came.
        lost: how many requests ended with a lost connection, and were sent again.
        accepted: refs of the answers whose feedback was accepted.
    """

    def __init__(self, client: Client, number: int) -> None:
        self.client, self.number = client, number
        self.answered = self.lost = 0
        self.accepted: list[str] = []
        self.first = self.connection
        self._answered = asyncio.Event()

    @property
    def connection(self) -> object:
        """The connection that the client has; one between two has none."""
        assert self.client._websocket is not None
        return self.client._websocket.result()

    async def ask(self, done: asyncio.Event) -> None:
        """Ask until it is enough."""
        while not done.is_set():
            await self._ask()

    async def judge(self, done: asyncio.Event) -> None:
        """Ask until it is enough, and say of each answer that it helped, as often as it takes."""
        while not done.is_set():
            ref = await self._ask()
            while not isinstance(await self._request(self.client.feedback, ref, helpful=True), Accepted):
                pass
            self.accepted.append(ref)

    async def answers(self, more: int) -> None:
        """Wait for so many more answers."""
        enough = self.answered + more
        while self.answered < enough:
            self._answered.clear()
            await self._answered.wait()

    async def _ask(self) -> str:
        text = f"{UNSEEN} {self.number} {self.answered}"
        while not isinstance(reply := await self._request(self.client.ask, text, budget_ms=10_000), Answer):
            assert reply is None, reply
        self.answered += 1
        self._answered.set()
        return reply.ref

    async def _request(self, send: Callable[..., Awaitable[object]], text: str, **options: Any) -> object:
        """The reply; None where the connection was lost before it."""
        try:
            return await send(text, **options)
        except ClientError as exc:
            if not exc.again:
                raise
        self.lost += 1
        await asyncio.sleep(0)
        return None


@asynccontextmanager
async def busy(
    visitors: list[Visitor], do: Callable[[Visitor, asyncio.Event], Coroutine[Any, Any, None]]
) -> AsyncIterator[None]:
    """Visitors that do something all the while; what goes wrong for one of them ends the test."""
    done = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for visitor in visitors:
            group.create_task(do(visitor, done))
        yield
        done.set()


async def all_of(visitors: list[Visitor], more: int) -> None:
    """Wait until every one of them has so many more answers."""
    await asyncio.gather(*(visitor.answers(more) for visitor in visitors))


def settle_on(running: Workers, worker: int, *, stopped: bool) -> None:
    """Have a worker accept no connection for now, or go on."""
    os.kill(running.pids[worker], signal.SIGSTOP if stopped else signal.SIGCONT)


async def test_a_worker_is_killed_under_load(site: Site) -> None:
    """The other one serves on, clients of the dead one come back and are answered; no accepted feedback is lost."""
    (site.folder / "faqwire.toml").write_text(f'{UNHURRIED}journal = "journal.sqlite"\n')
    with serving(site) as running:
        async with AsyncExitStack() as stack:
            visitors: dict[int, list[Visitor]] = {1: [], 2: []}
            for worker, other in ((1, 2), (2, 1)):
                settle_on(running, other, stopped=True)
                for number in range(3):
                    client = await stack.enter_async_context(Client(running.url))
                    visitors[worker].append(Visitor(client, 10 * worker + number))
                settle_on(running, other, stopped=False)
            everyone = visitors[1] + visitors[2]
            async with busy(everyone, Visitor.judge):
                await all_of(everyone, 5)
                os.kill(running.pids[1], signal.SIGKILL)
                await asyncio.to_thread(running.until, "worker died", worker=1, status=-9)
                await all_of(everyone, 5)
                await asyncio.to_thread(running.until, "worker ready", worker=1)
                await all_of(everyone, 5)
            assert all(visitor.connection is not visitor.first for visitor in visitors[1])
            assert all(visitor.connection is visitor.first for visitor in visitors[2])
        assert not any(visitor.lost for visitor in visitors[2])
        assert running.value("worker_restarts_total") == 1
        assert running.end() == 0
    exported = site.run("journal", "export", "feedback")
    kept = {json.loads(line)["ref"] for line in exported.stdout.splitlines()}
    assert {ref for visitor in everyone for ref in visitor.accepted} <= kept


async def test_a_worker_is_asked_to_stop(site: Site) -> None:
    """A worker that gets SIGTERM lets its clients go to the other one without losing a request, and is replaced."""
    (site.folder / "faqwire.toml").write_text(UNHURRIED)
    with serving(site) as running:
        async with Client(running.url) as one, Client(running.url) as two:
            visitors = [Visitor(one, 1), Visitor(two, 2)]
            async with busy(visitors, Visitor.ask):
                await all_of(visitors, 3)
                os.kill(running.pids[1], signal.SIGTERM)
                await asyncio.to_thread(running.until, "worker died", worker=1, status=0)
                await asyncio.to_thread(running.until, "worker ready", worker=1)
                await all_of(visitors, 3)
        assert [visitor.lost for visitor in visitors] == [0, 0]
        assert running.end() == 0


async def test_reloads_and_a_drain_under_load(site: Site) -> None:
    """Ten changes of the index, and the end: nobody loses a question, and the exit status is 0."""
    (site.folder / "faqwire.toml").write_text(UNHURRIED)
    await asyncio.to_thread(add_version, site, SECOND)
    versions = [SECOND, (site.index / "current").readlink().name]
    with serving(site) as running:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Client(running.url)) for _ in range(6)]
            visitors = [Visitor(client, number) for number, client in enumerate(clients)]
            async with busy(visitors, Visitor.ask):
                for turn in range(10):
                    await asyncio.to_thread(use_version, site.index, versions[turn % 2])
                    for _ in range(2):
                        await asyncio.to_thread(running.until, "reloaded", index=versions[turn % 2])
                await all_of(visitors, 1)
            assert not any(visitor.lost for visitor in visitors)
        assert await asyncio.to_thread(running.end) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it(site: Site, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM do the same."""
    with serving(site) as running:
        assert running.end(number) == 0
    assert running.events[-1]["event"] == "stopped"


def test_the_supervisor_is_killed(site: Site) -> None:
    """Workers do not outlive their supervisor: they drain and stop by themselves."""
    with serving(site) as running:
        running.process.kill()
        _, rest = running.process.communicate()  # ends when the last worker has
        assert [json.loads(line)["event"] for line in rest.splitlines()].count("stopped") == 2


def test_what_a_killed_supervisor_leaves_is_removed(site: Site) -> None:
    """The next start tidies up, but takes nothing from workers that still serve, nor from another server."""
    temporary = site.folder / "tmp"
    with serving(site) as other:
        [used] = temporary.iterdir()
        with serving(site) as running:
            [left] = set(temporary.iterdir()) - {used}
            settle_on(running, 1, stopped=True)  # so that it outlives the supervisor
            running.process.kill()
            running.process.wait()
            with serving(site) as third:
                assert left.exists()
                assert third.end() == 0
            settle_on(running, 1, stopped=False)
            running.process.communicate()  # ends when the last worker has
        with serving(site) as third:
            assert [event["folder"] for event in third.events if "folder" in event] == [str(left)]
            assert not left.exists()
            assert third.end() == 0
        assert used.exists()
        assert other.value("workers", state="running") == 2
        assert other.end() == 0
    assert not list(temporary.iterdir())


def test_what_cannot_be_loaded_is_said_once(site: Site) -> None:
    """A start that fails is one sentence and exit status 1, with as many workers as there may be."""
    done = site.run("serve", "--port", "0", "--workers", "3", "--index", "nowhere")
    assert done.returncode == 1
    assert done.stderr.count("faqwire: ") == 1
    assert "faqwire: nowhere does not exist; build it with `faqwire build FAQ -o nowhere`" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((site.folder / "tmp").iterdir())


def test_a_busy_port(site: Site) -> None:
    """A port that is taken is said before anything is loaded."""
    with serving(site) as running:
        port = running.url.rstrip("/").rpartition(":")[2]
        done = site.run("serve", "--port", port, "--workers", "2")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert f"127.0.0.1:{port} cannot be listened on" in done.stderr
        metrics = re.search(r":(\d+)/metrics", running.metrics)
        assert metrics
        taken = site.run("serve", "--port", "0", "--workers", "2", env={"FAQWIRE_METRICS_PORT": metrics[1]})
        assert taken.returncode == 1
        assert f"127.0.0.1:{metrics[1]} cannot be listened on" in taken.stderr


def test_a_folder_for_metrics_of_ones_own(site: Site, tmp_path: Path) -> None:
    """The environment's folder would hold other servers' values as well, and is refused."""
    done = site.run("serve", "--port", "0", "--workers", "2", env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)})
    assert done.returncode == 1
    assert "PROMETHEUS_MULTIPROC_DIR is set, but workers have a folder of their own; unset it" in done.stderr


def test_settings_reach_the_workers(site: Site) -> None:
    """Flags, environment and file are read once, by the supervisor; no secret is in a worker's arguments."""
    (site.folder / "faqwire.toml").write_text('max_text = 77\njournal = "secret-place.sqlite"\n')
    with serving(site, "--budget-ms", "5000") as running:
        (site.folder / "faqwire.toml").write_text("max_text = 66\n")
        os.kill(running.pids[2], signal.SIGKILL)
        running.until("worker ready", worker=2)
        if Path("/proc/self/cmdline").exists():
            for place in ("cmdline", "environ"):
                assert b"secret-place" not in Path(f"/proc/{running.pids[2]}/{place}").read_bytes()
        asked = site.run("ask", "--url", running.url, "--json", stdin=f"{'x' * 78}\n" * 4)
        assert asked.stdout.count("invalid_text") == 4
        assert running.end() == 0


def test_a_stop_before_it_serves(site: Site) -> None:
    """Ctrl-C while the first worker loads waits for nothing, and is no failure."""
    with site.start("serve", "--port", "0", "--workers", "2") as process:
        running = Workers(process)
        running.until("worker started")
        os.kill(running.pids[1], signal.SIGSTOP)  # it is not ready yet, and will not be
        process.send_signal(signal.SIGINT)
        running.until("stopping")
        os.kill(running.pids[1], signal.SIGCONT)
        _, rest = process.communicate()
    assert process.returncode == 0
    assert [json.loads(line)["event"] for line in rest.splitlines()] == ["stopped"]
    assert not list((site.folder / "tmp").iterdir())


def test_a_reload_before_it_serves(site: Site) -> None:
    """SIGHUP while a worker loads is no end, and it reloads once it serves: what was changed may be loaded already."""
    with site.start("serve", "--port", "0", "--workers", "2") as process:
        running = Workers(process)
        running.until("worker started")
        process.send_signal(signal.SIGHUP)
        running.until("worker ready", worker=2)
        if not any(event["event"] == "nothing has changed" for event in running.events):  # the other was not quicker
            running.until("nothing has changed", worker=1)
        os.kill(running.pids[2], signal.SIGKILL)
        running.until("worker started", worker=2)
        os.kill(running.pids[2], signal.SIGHUP)  # nor does it end one that is told itself, however early
        running.until("nothing has changed", worker=2)
        assert running.end() == 0
    reloading = [event["worker"] for event in running.events if event["event"] == "reloading"]
    assert reloading == [1, 2]


def test_a_name_that_is_no_text(site: Site) -> None:
    """What cannot be told to a worker is said, and ends the start."""
    done = site.run("serve", "--port", "0", "--workers", "2", "--index", os.fsdecode(b"\xff"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "faqwire: a setting cannot be told to workers" in done.stderr
    assert not list((site.folder / "tmp").iterdir())


def test_temporary_files_are_tidied_up(site: Site) -> None:
    """Without the folder of the metrics, which may be taken away, workers are started all the same."""
    with serving(site) as running:
        for folder in (site.folder / "tmp").iterdir():
            shutil.rmtree(folder)
        os.kill(running.pids[1], signal.SIGKILL)
        running.until("worker ready", worker=1)
        assert running.end() == 0
    assert not list((site.folder / "tmp").iterdir())
