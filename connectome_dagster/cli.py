"""The command line, `connectome`. Imports what a command needs when that command runs."""

from __future__ import annotations

import gc
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from connectome_dagster import __version__

if TYPE_CHECKING:
    from connectome_dagster.local.server import LocalServer

# What `serve` ends with when it cannot start, as click does for a wrong option.
CANNOT_START = 2
# Python's thresholds but for the last: a full collection walks every document that is held, finds
# nothing, for documents have no cycles, and took a third of the time of a large load.
COLLECT_RARELY = (700, 10, 1000)
# How often `serve` looks whether its server still runs, while it waits for a signal.
LOOK_SECONDS = 1.0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="connectome-dagster", prog_name="connectome")
def main() -> None:
    """Connectome collections, from the command line."""


class Seed(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """An option's value of the form NAME=FILE."""

    name = "NAME=FILE"

    def convert(
        self,
        value: str | tuple[str, Path],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, Path]:
        """Split at the first `=`; a file's name may hold more of them."""
        if isinstance(value, tuple):
            return value
        collection, equals, file = value.partition("=")
        if not (collection and equals and file):
            self.fail(f"{value!r} is not of the form NAME=FILE", param, ctx)
        return collection, Path(file)


class _Serve(click.Command):
    """Lists the switches at the end of its help."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as click has it
        from connectome_dagster.local.switches import described  # for this help alone

        with formatter.section("Switches, by the open question (U1-U14), with default and values"):
            formatter.write_dl(
                [
                    (name, f"{question}: {meaning}. {values}")
                    for name, question, meaning, values in described()
                ]
            )


@main.command(cls=_Serve)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8787,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory in which documents are kept; without it they are gone at the end.",
)
@click.option(
    "--collection",
    "collections",
    multiple=True,
    metavar="NAME",
    help="A collection that is there; others are a 404. Repeatable.",
)
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    type=Seed(),
    help="Documents that collection NAME starts with: a JSON array, NDJSON, or a GeoJSON "
    "FeatureCollection. Left out when the collection has documents already. Repeatable.",
)
@click.option(
    "--switch",
    "switches",
    multiple=True,
    metavar="NAME=VALUE",
    help="How the API's open questions are answered; see below. Repeatable.",
)
def serve(
    host: str,
    port: int,
    data: Path | None,
    collections: tuple[str, ...],
    seeds: tuple[tuple[str, Path], ...],
    switches: tuple[str, ...],
) -> None:
    """Run the Data API on this machine until it is interrupted.

    The credentials are taken from CONNECTOME_READ_CREDENTIAL and CONNECTOME_WRITE_CREDENTIAL;
    those that are not set are made up and printed as lines for a shell. Switches and faults can be
    set while it runs, under /control/, with CONNECTOME_CONTROL_CREDENTIAL, or the write credential
    if that is not set.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    gc.set_threshold(*COLLECT_RARELY)
    server = _server(host, port, data, collections, switches)
    try:
        _plant(server, seeds)
        server.start()
        _announce(server)
        while server.running and not stop.wait(LOOK_SECONDS):
            pass
        if not stop.is_set():
            raise click.ClickException("the local server ended by itself")
    finally:
        server.stop()


class _CannotStart(click.ClickException):
    """The server cannot start; the message says why in one line."""

    exit_code = CANNOT_START


def _server(
    host: str,
    port: int,
    data: Path | None,
    collections: tuple[str, ...],
    switches: tuple[str, ...],
) -> LocalServer:
    try:
        # Starlette, uvicorn and bson: only this command needs them, and they may not be installed.
        from connectome_dagster.local.journal import JournalError
        from connectome_dagster.local.server import LocalServer
        from connectome_dagster.local.switches import Switches
    except ModuleNotFoundError as error:
        raise _CannotStart(
            f"the local server needs {error.name}: pip install 'connectome-dagster[local]'"
        ) from None
    try:
        return LocalServer(
            collections,
            read_credential=os.environ.get("CONNECTOME_READ_CREDENTIAL") or None,
            write_credential=os.environ.get("CONNECTOME_WRITE_CREDENTIAL") or None,
            control_credential=os.environ.get("CONNECTOME_CONTROL_CREDENTIAL") or None,
            data=data,
            host=host,
            port=port,
            switches=Switches.from_texts(switches),
        )
    except OSError as error:
        # Python adds the address once more to what the system says.
        why = str(error.strerror).partition(" (while")[0]
        trouble = f"cannot listen on {host} port {port}: {why} (--port 0 takes a free one)"
    except (JournalError, ValueError) as error:
        trouble = str(error)
    raise _CannotStart(trouble)


def _plant(server: LocalServer, seeds: tuple[tuple[str, Path], ...]) -> None:
    from connectome_dagster.local.http_errors import HttpError  # needs no more than _server did
    from connectome_dagster.local.seed import SeedError

    for collection, file in seeds:
        try:
            planted = server.seed_file(collection, file)
        except (HttpError, SeedError, ValueError) as error:
            trouble = str(error)
        else:
            had = "has documents already, left as it is"
            what = had if planted is None else f"{planted} documents from {file.name}"
            click.echo(f"Collection {collection}: {what}")
            continue
        raise _CannotStart(f"cannot seed {collection}: {trouble}")


def _announce(server: LocalServer) -> None:
    for name, credential in (
        ("CONNECTOME_READ_CREDENTIAL", server.read_credential),
        ("CONNECTOME_WRITE_CREDENTIAL", server.write_credential),
    ):
        if not os.environ.get(name):
            click.echo(f"export {name}={credential}")
    # Said last: who waits for this line may send a request at once. echo flushes.
    click.echo(f"Connectome local server answers at {server.base_url}")
