"""What the README shows is run as it stands, but for address, credentials and collection ids."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from connectome_dagster.testing import ConnectomeServer

README = Path(__file__).parents[1] / "README.md"
MOVIES = [
    {"title": "Movie ABC", "amount": 10},
    {"title": "Movie XYZ", "amount": 39},
    {"title": "Movie BDD", "amount": 100},
]


@pytest.fixture
def blocks(connectome_server: ConnectomeServer) -> list[str]:
    replaced = {
        '"movies"': f'"{connectome_server.collection(MOVIES)}"',
        '"large_amounts"': f'"{connectome_server.collection()}"',
        "http://127.0.0.1:8787": connectome_server.base_url,
        'read_credential="…"': f'read_credential="{connectome_server.read_credential}"',
        'write_credential="…"': f'write_credential="{connectome_server.write_credential}"',
    }
    text = README.read_text(encoding="utf-8")
    for theirs, ours in replaced.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


# Dagster's own call, for every resource that holds another one.
@pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")
def test_the_asset_stores_what_it_read(
    blocks: list[str], connectome_server: ConnectomeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONNECTOME_BASE_URL", connectome_server.base_url)
    monkeypatch.setenv("CONNECTOME_READ_CREDENTIAL", connectome_server.read_credential)
    monkeypatch.setenv("CONNECTOME_WRITE_CREDENTIAL", connectome_server.write_credential)

    defs = run(blocks[0])["defs"]
    assert isinstance(defs, dg.Definitions)
    job = defs.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):  # the second time replaces what the first one stored
            job.execute_in_process(instance=instance)

    stored = re.search(r'"connectome/collection": "(\w+)"', blocks[0])
    assert stored is not None
    documents = connectome_server.documents(stored[1])
    assert [(d["title"], d["amount"]) for d in documents] == [("Movie XYZ", 39), ("Movie BDD", 100)]


def test_the_engine_reads_and_upserts_without_dagster(blocks: list[str]) -> None:
    names = run(blocks[1])

    assert names["frame"]["title"].tolist() == ["Movie XYZ", "Movie BDD"]
    assert names["report"].rows == 2


def run(block: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(block, str(README), "exec"), names)  # noqa: S102 - our own page
    return names
