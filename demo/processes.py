"""Starts and stops the processes that a demonstration needs, and finds their addresses.

Knows nothing of Dagster nor of the example's assets.
"""

from __future__ import annotations

import os
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
COLLECTIONS = ("earthquakes", "daily_region_summary", "earthquake_alerts")
SEED = ROOT / "example_project" / "data" / "earthquakes.json"
START_SECONDS = 60.0  # a cold disk and two busy cores
STOP_SECONDS = 15.0  # what dagster's daemon takes to end its runs


class CannotStart(Exception):
    """What is missing, in one line for the person at the terminal."""


@contextmanager
def local_server(*, port: int = 0, data: Path | None = None) -> Iterator[str]:
    """`connectome serve` with the week's events and empty collections for what is computed.

    Its address and two made-up credentials are in this process's environment while it runs, which
    is where the example looks for them; they are written nowhere else.

    Args:
        port: 0 takes a free one.
        data: folder that keeps the documents; None keeps them in memory.

    Yields:
        The server's address.
    """
    for name in ("CONNECTOME_READ_CREDENTIAL", "CONNECTOME_WRITE_CREDENTIAL"):
        os.environ[name] = secrets.token_urlsafe(24)
    for name in ("no_proxy", "NO_PROXY"):  # a proxy does not know this machine's loopback
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))
    command = [str(Path(sys.executable).with_name("connectome")), "serve", "--port", str(port)]
    command += [] if data is None else ["--data", str(data)]
    command += ["--seed", f"raw_earthquakes={SEED}"]
    for name in COLLECTIONS:
        command += ["--collection", name]
    with process(command, stdout=subprocess.PIPE) as server:
        address = _address(server)
        os.environ["CONNECTOME_BASE_URL"] = address
        yield address


@contextmanager
def process(
    command: Sequence[str], *, stdout: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process with its children: stopped together when the block ends, however it ends."""
    child = subprocess.Popen(  # noqa: S603 - commands are written out in this package
        command, stdout=stdout, text=True, start_new_session=True, cwd=ROOT
    )
    try:
        yield child
    finally:
        stop(child)


def stop(child: subprocess.Popen[str]) -> None:
    """Asks as Ctrl-C does, waits, and makes sure."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _address(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None  # noqa: S101 - `local_server` asked for the pipe
    deadline = time.monotonic() + START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(server.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            line = server.stdout.readline()
            if not line:
                raise CannotStart("the local server ended before it answered: see above")
            if "http://" in line:
                return "http://" + line.split("http://", 1)[1].split()[0]
    raise CannotStart(f"the local server did not answer within {START_SECONDS:.0f} seconds")


def require_free(port: int, variable: str) -> None:
    """Raises `CannotStart` when something listens on a port of this machine already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            taken = True
        else:
            taken = False
    if taken:
        raise CannotStart(
            f"port {port} is taken: stop what uses it, or try: make ui {variable}={port + 1}"
        )


def stop_on_signals() -> None:
    """Lets SIGTERM and a closed terminal end this process in order, as Ctrl-C does.

    Ctrl-C itself is listed too: a shell that starts a process in the background has it ignored.
    """

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
