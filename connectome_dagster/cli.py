"""The command line, `connectome`. Imports what a command needs when that command runs."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from connectome_dagster import __version__

if TYPE_CHECKING:
    from connectome_dagster.local.server import LocalServer
    from connectome_dagster.transfer.collection import Collection
    from connectome_dagster.transfer.findings import Finding, ProbeReport

# What a command ends with when it cannot start, as click does for a wrong option.
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


_base_url = click.option(
    "--base-url",
    envvar="CONNECTOME_BASE_URL",
    show_envvar=True,
    help="Where the service is; https://app.connectomesystem.com if it is not given.",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")


@main.command()
@click.argument("collection")
@_base_url
@click.option(
    "--everything",
    is_flag=True,
    help="The collection may hold documents, and all of them are removed.",
)
@_as_json
def probe(collection: str, base_url: str | None, everything: bool, as_json: bool) -> None:
    """Find out what a service really does, in the scratch collection COLLECTION.

    Answers what the API's page leaves open, with the settings to use, and tells which guarantee of
    writing is within reach. The collection has to be empty, and is empty again afterwards.

    The credentials are taken from CONNECTOME_READ_CREDENTIAL and CONNECTOME_WRITE_CREDENTIAL; a
    terminal is asked for those that are not set. Ends with 1 if the service refuses or does not
    answer, or if documents of the probe are left.
    """
    with _opened(collection, base_url) as opened:
        report = opened.probe(everything=everything)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        _show_findings(report)
    if report.left != 0:
        left = "some" if report.left is None else report.left
        raise click.ClickException(
            f"{left} documents of the probe may be left in collection {collection!r}: remove those "
            "that have a field 'connectome_probe'"
        )


@main.command()
@click.argument("collection")
@click.option("--load", help="The load, in the words that it was written with.")
@click.option("--load-id", help="In place of --load, its id, as reports and errors tell it.")
@click.option("--where", metavar="JSON", help="A MongoDB filter for a part of the load.")
@click.option(
    "--bookkeeping",
    default="_dagster",
    show_default=True,
    help="The field of the notes in documents.",
)
@_base_url
@_as_json
def reconcile(
    collection: str,
    load: str | None,
    load_id: str | None,
    where: str | None,
    bookkeeping: str,
    base_url: str | None,
    as_json: bool,
) -> None:
    """Leave one document of each row of a load in COLLECTION.

    Rows are there twice where a service applied a request twice, or long after it was read back as
    absent. Running it again, or beside a load that is going on, is harmless.

    The credentials are taken from CONNECTOME_READ_CREDENTIAL and CONNECTOME_WRITE_CREDENTIAL; a
    terminal is asked for those that are not set.
    """
    if (load is None) == (load_id is None):
        raise click.UsageError("give --load or --load-id, and not both")
    query = _filter(where)
    with _opened(collection, base_url, bookkeeping=bookkeeping) as opened:
        report = opened.reconcile(load, load_id=load_id, where=query)
    if as_json:
        told = {"collection": collection, "load": report.load, "rows": report.rows}
        told |= {"deleted": report.deleted, "requests": report.requests}
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(
            f"Load {report.load} in collection {collection}: {report.rows} documents, "
            f"{report.deleted} of them surplus and removed"
        )


def _filter(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        query = json.loads(text)
    except ValueError as error:
        query = None
        trouble = str(error)
    else:
        trouble = "it is no object"
    if not isinstance(query, dict):
        raise click.UsageError(f"--where is not a filter in JSON: {trouble}")
    return query


@contextmanager
def _opened(collection: str, base_url: str | None, **settings: Any) -> Iterator[Collection]:
    """A collection, and every error of ours as one line."""
    # pyarrow and the HTTP library: only commands that speak to a service need them.
    from connectome_dagster.errors import ConfigurationError, ConnectomeError
    from connectome_dagster.transfer.collection import Connectome

    credentials = {role: _credential(role) for role in ("read", "write")}
    try:
        with Connectome(
            base_url=base_url,
            read_credential=credentials["read"],
            write_credential=credentials["write"],
            **settings,
        ) as connectome:
            yield connectome.collection(collection)
    except ConfigurationError as error:
        trouble: click.ClickException = _CannotStart(str(error))
    except ConnectomeError as error:
        trouble = click.ClickException(str(error))
    else:
        return
    raise trouble


def _credential(role: str) -> str:
    """The credential of the environment, or what a person types unseen; never an argument."""
    name = f"CONNECTOME_{role.upper()}_CREDENTIAL"
    given = os.environ.get(name)
    if not given and not sys.stdin.isatty():
        raise _CannotStart(f"there is no {role} credential: set {name}")
    return given or str(click.prompt(f"The {role} credential", hide_input=True, err=True))


def _show_findings(report: ProbeReport) -> None:
    left = "nothing is left of it" if report.left == 0 else "not all of it could be removed"
    click.echo(
        f"Probed collection {report.collection} with {report.requests} requests in "
        f"{report.seconds:.1f} s; {left}"
    )
    formatter = click.HelpFormatter(max_width=100)
    with formatter.section("What was found"):
        formatter.write_dl(
            [
                (f"{finding.question:5} {finding.name} = {_shown(finding)}", finding.seen)
                for finding in report.findings
            ],
            col_max=44,
        )
    with formatter.section("Guarantee within reach"):
        formatter.write_dl([(report.guarantee, report.why)])
    with formatter.section("Settings to use"):
        lines = [(f"{name}={value!r}", "") for name, value in report.settings.items()]
        formatter.write_dl(lines or [("none", "the defaults are right")])
    click.echo(formatter.getvalue(), nl=False)


def _shown(finding: Finding) -> str:
    if not finding.known:
        return "?"
    if isinstance(finding.value, bool):
        return "yes" if finding.value else "no"
    return "none" if finding.value is None else str(finding.value)
