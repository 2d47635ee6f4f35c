"""What docs/writing.md shows is run, and what it names exists."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from connectome_dagster import Collection, Connectome
from connectome_dagster.testing import ConnectomeServer

PAGE = Path(__file__).parents[1] / "docs" / "writing.md"
TEXT = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
pytestmark = pytest.mark.skipif(not TEXT, reason="docs/ is not here, as in the source package")


def test_the_example_runs(connectome_server: ConnectomeServer) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names = {
        "base_url": connectome_server.base_url,
        "read": connectome_server.read_credential,
        "write": connectome_server.write_credential,
        "collection": connectome_server.collection(),
    }

    exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102 - our own page

    assert len(connectome_server.documents(names["collection"])) == 3


def test_the_settings_are_those_of_a_connection_with_their_defaults() -> None:
    parameters = inspect.signature(Connectome).parameters
    rows = re.findall(r"^\| (`.+?`) \| (.+?) \|", TEXT.partition("## Settings")[2], re.MULTILINE)
    assert len(rows) > 5
    for names, defaults in rows:
        for name, default in zip(re.findall(r"`(\w+)`", names), defaults.split(", "), strict=True):
            shown = "1048576" if default == "1 MiB" else default.strip("`").replace('"', "'")
            assert repr(parameters[name].default) == shown, name


def test_the_words_are_those_of_the_methods() -> None:
    methods = [getattr(Collection, name) for name in ("append", "replace", "upsert", "sync")]
    methods += [Collection.reconcile, Collection.probe, Connectome.__init__]
    known = {name for each in methods for name in inspect.signature(each).parameters}
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)

    used = set(re.findall(r"\b([a-z_]+)=", prose))

    assert len(used) > 8
    assert used <= known, used - known


def test_every_finding_of_a_probe_is_named(connectome_server: ConnectomeServer) -> None:
    with Connectome(
        base_url=connectome_server.base_url,
        read_credential=connectome_server.read_credential,
        write_credential=connectome_server.write_credential,
    ) as connectome:
        report = connectome.collection(connectome_server.collection()).probe()
    table = TEXT.partition("## probe")[2].partition("## Settings")[0]

    named = dict.fromkeys(
        name for cell in re.findall(r"^\| [U\u2013].*? \| (.+?) \|$", table, re.MULTILINE)
        for name in re.findall(r"`([a-z_]+)`", cell.partition(":")[0])
    )  # fmt: skip
    assert set(named) == {finding.name for finding in report.findings}
