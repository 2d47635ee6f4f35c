"""The benchmarks run, and their sides move the same documents; how fast is not tested."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import FEW_DOCUMENTS, ROWS, BenchmarkFailed, check_same, main, replaying
from benchmarks.data import documents, frame_file, prepare
from benchmarks.local_server import Speed
from benchmarks.report import Comparison, Run, table
from benchmarks.sides import SIDES, digest, run_side

COUNT = 2300  # three batches, the last one not full


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    prepare(folder, FEW_DOCUMENTS)
    prepare(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with replaying(folder, COUNT) as address:
        yield address


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.mark.parametrize("name", SIDES)
def test_every_side_moves_every_field_of_every_document(
    name: str, folder: Path, address: str
) -> None:
    frame = str(frame_file(folder, COUNT)) if "append" in name else ""

    told = run_side(name, address, frame, prove=True)

    made = list(documents(COUNT))
    if "append" in name:
        made.sort(key=lambda document: str(document["_id"]))
    assert told["rows"] == COUNT
    assert told["digest"] == digest(made)
    assert told["seconds"] > 0
    assert told["peak_bytes"] >= told["baseline_bytes"] > 0


def test_a_run_prints_a_table_and_keeps_its_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(
        ["--only", "read: batches", "--repeat", "1", "--documents", "50", "--folder", str(tmp_path)]
    )

    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [line.split(" | ")[:2] for line in lines[2:]] == [
        ["| read: batches", "package"],
        ["| read: batches", "by hand"],
    ]
    assert len({line.count("|") for line in lines}) == 1
    (row,) = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["rows"]
    (package,), (by_hand,) = row["product"], row["alternative"]
    assert package["rows"] == by_hand["rows"] == 50
    assert package["digest"] == by_hand["digest"] == digest(list(documents(50)))


def test_the_local_server_is_measured_beside_its_targets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(
        ["--only", "local server", "--repeat", "1", "--documents", "50", "--folder", str(tmp_path)]
    )

    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    told = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    speeds = [Speed(**speed) for speed in told["local_server"]]
    assert told["rows"] == []
    assert len(lines) == len(speeds) + 2
    assert {speed.unit for speed in speeds} == {"documents/s", "upserts/s", "MB/s", "ms"}
    assert all(value > 0 for speed in speeds for value in speed.runs)


@pytest.mark.parametrize(
    ("unit", "runs", "met"),
    [("ms", [1, 9, 2], True), ("ms", [9, 9, 2], False), ("MB/s", [9, 9, 1], True)],
)
def test_a_target_is_a_bound_of_the_median(unit: str, runs: list[float], met: bool) -> None:
    assert Speed("row", unit, runs, 5, {}).met is met


def test_every_row_names_sides_that_exist() -> None:
    assert {side for row in ROWS.values() for side in row[:2]} == SIDES.keys()


def test_the_documents_are_the_same_on_every_machine() -> None:
    assert digest(list(documents(1000))) == "c4819d028cd5f1fbf293459ea93f2120"


def test_a_changed_value_changes_the_digest() -> None:
    changed: list[dict[str, Any]] = list(documents(10))
    changed[7]["place"]["geo"]["lat"] += 0.01

    assert digest(changed) != digest(list(documents(10)))


RUN = Run(
    seconds=1.0, cpu_seconds=1.0, baseline_bytes=2**20, peak_bytes=2**21, rows=10, digest="same"
)


@pytest.mark.parametrize("other", [replace(RUN, digest="other"), replace(RUN, rows=9)])
def test_sides_that_moved_different_documents_are_not_compared(other: Run) -> None:
    check_same("read", 10, [RUN], [RUN])
    with pytest.raises(BenchmarkFailed, match="read"):
        check_same("read", 10, [RUN], [other])


def test_ratios_are_of_medians_and_say_how_much_better_the_package_is() -> None:
    slow = [replace(RUN, seconds=seconds, peak_bytes=2**23) for seconds in (100.0, 3.0, 4.0)]

    compared = Comparison("read", 1000, [RUN], slow)

    assert compared.times_faster == 4.0
    assert compared.memory_share == 0.25
    assert "**4.0 x** | 0.25 x" in table([compared])


@pytest.mark.parametrize("wrong", [["--only", "nothing"], ["--repeat", "0"], ["--documents", "0"]])
def test_an_option_that_runs_nothing_is_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(wrong)
