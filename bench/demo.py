"""From a clean clone to the first answer, and from a stopped server to the next.

    python -m bench.demo [--runs 3] [--no-pip-cache]

Clones the repository into a temporary folder, runs `make demo` there, and asks a question over a websocket as soon as
the address is printed. Then stops it and does so again, for the second start. Also times `faqwire --help` there.
"""

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.machine import heading
from bench.served import address_in
from server.client import Client
from server.messages import Answer

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="second starts, and runs of --help, to take a median of")
    parser.add_argument("--no-pip-cache", action="store_true", help="download every package again")
    options = parser.parse_args()
    environment = {**os.environ, **({"PIP_NO_CACHE_DIR": "1"} if options.no_pip_cache else {})}
    with tempfile.TemporaryDirectory(prefix="faqwire-demo-") as aside:
        clone = Path(aside) / "faqwire"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)  # noqa: S607 git from the PATH
        first = _demo(clone, environment)
        seconds = [_demo(clone, environment) for _ in range(options.runs)]
        helps = [_timed_help(clone) for _ in range(options.runs)]
    print(heading("python -m " + " ".join(["bench.demo", *sys.argv[1:]])))
    print("| what | seconds | bar |\n|---|---|---|")
    print(f"| clean clone to first answer | {first:.1f} | 300 |")
    print(f"| started again, to first answer: median of {len(seconds)} | {statistics.median(seconds):.2f} | 3 |")
    print(f"| started again, to first answer: worst | {max(seconds):.2f} | 3 |")
    print(f"| `faqwire --help`: median of {len(helps)} | {statistics.median(helps):.3f} | 0.4 |")


def _demo(clone: Path, environment: dict[str, str]) -> float:
    """Run `make demo` until it has answered one question; seconds."""
    started = time.perf_counter()
    with subprocess.Popen(
        ["make", "demo", "PORT=0"],  # noqa: S607 make from the PATH
        cwd=clone,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            url = next(filter(None, map(address_in, process.stdout or ())), None)
            if url is None:
                raise SystemExit(f"make demo ended with status {process.wait()} and no address")
            asyncio.run(_ask(url))
            return time.perf_counter() - started
        finally:
            os.killpg(process.pid, signal.SIGTERM)


async def _ask(url: str) -> None:
    async with Client(url) as client:
        reply = await client.ask("how long do i have to return a jacket", budget_ms=5000)
        if not isinstance(reply, Answer):
            raise SystemExit(f"the first question ended in {reply}")


def _timed_help(clone: Path) -> float:
    started = time.perf_counter()
    subprocess.run([str(clone / ".venv/bin/faqwire"), "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
