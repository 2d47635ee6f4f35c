"""`connectome serve` as a shell sees it: what it prints, how it ends, what it does not import."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from connectome_dagster import __version__
from connectome_dagster.cli import main
from connectome_dagster.local.switches import described
from connectome_dagster.testing import ConnectomeServer

COMMAND = [sys.executable, "-W", "error", "-c", "from connectome_dagster.cli import main; main()"]
SHARED = Path(__file__).parents[2] / "shared"
CREDENTIALS = {
    "CONNECTOME_READ_CREDENTIAL": "read-from-outside",
    "CONNECTOME_WRITE_CREDENTIAL": "write-from-outside",
}


def environment(**more: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in CREDENTIALS} | more


class Serving:
    """A server's process, up to the line with its address."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.lines: list[str] = []
        for line in process.stdout:
            self.lines.append(line.rstrip("\n"))
            if "answers at" in line:
                self.base_url = line.split()[-1]
                return
        pytest.fail(f"it ended before it answered: {self.lines}")

    def stop(self, with_signal: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(with_signal)
        rest, _ = self.process.communicate(timeout=20)
        return self.process.returncode, rest


@contextmanager
def serving(*arguments: str, **credentials: str) -> Iterator[Serving]:
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(**credentials),
    )
    try:
        yield Serving(process)
    finally:
        process.kill()
        process.communicate(timeout=20)


def ended(*arguments: str, code: int = 2, **credentials: str) -> str:
    """The one line with which a server that cannot start ends."""
    done = subprocess.run(
        [*COMMAND, "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env=environment(**credentials),
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip()


def test_it_says_its_version() -> None:
    assert __version__ in CliRunner().invoke(main, ["--version"]).output


def test_help_names_every_option_of_serve() -> None:
    text = CliRunner().invoke(main, ["serve", "--help"]).output

    for option in ("--host", "--port", "--data", "--collection", "--seed", "--switch"):
        assert option in text


def test_help_lists_every_switch_with_its_question() -> None:
    text = CliRunner().invoke(main, ["serve", "--help"]).output
    listed = re.findall(r"^  (\w+) +(U\d+):", text, re.MULTILINE)

    assert listed == [(name, question) for name, question, *_ in described()]


def test_switches_are_set_by_options_and_while_it_runs() -> None:
    switches = ("--switch", "page_cap=1", "--switch", "response_path=data")
    with serving("--collection", "things", *switches, **CREDENTIALS) as server:
        url = f"{server.base_url}/collection"
        write, read = f"{url}/batchwrite/write-from-outside", f"{url}/read/read-from-outside"
        requests.post(f"{write}/things", json=[{"_id": 1}, {"_id": 2}], timeout=10)
        assert requests.get(f"{read}/things", timeout=10).json() == {"data": [{"_id": 1}]}

        headers = {"Authorization": "Bearer write-from-outside"}
        control = f"{server.base_url}/control/switches"
        assert requests.put(control, json={}, headers=headers, timeout=10).ok
        assert requests.get(f"{read}/things", timeout=10).json() == [{"_id": 1}, {"_id": 2}]
        assert server.stop(signal.SIGTERM) == (0, "")


def test_the_control_credential_is_its_own_when_it_is_set() -> None:
    own = {"CONNECTOME_CONTROL_CREDENTIAL": "control-from-outside", **CREDENTIALS}
    with serving(**own) as server:
        statuses = [
            requests.get(
                f"{server.base_url}/control/switches",
                headers={"Authorization": f"Bearer {credential}"},
                timeout=10,
            ).status_code
            for credential in ("control-from-outside", "write-from-outside")
        ]

        assert statuses == [200, 401]


@pytest.mark.parametrize("switch", ["pagecap=1", "page_cap=none at all", "page_cap"])
def test_a_wrong_switch_is_one_line(switch: str) -> None:
    line = ended("--port", "0", "--switch", switch)

    assert "\n" not in line
    assert switch.partition("=")[0] in line


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_when_its_line_is_out_and_ends_cleanly(stop: signal.Signals) -> None:
    with serving("--collection", "things", "--collection", "more", **CREDENTIALS) as server:
        for collection in ("things", "more"):
            url = f"{server.base_url}/collection/read/read-from-outside/{collection}"
            assert requests.get(url, timeout=10).json() == []

        assert server.lines == [f"Connectome local server answers at {server.base_url}"]
        assert server.stop(stop) == (0, "")


def test_made_up_credentials_are_lines_for_a_shell() -> None:
    with serving("--collection", "things") as server:
        *exports, _ = server.lines
        patterns = [rf"export {name}=[\w-]{{32,}}" for name in CREDENTIALS]
        assert len(exports) == 2
        assert all(map(re.fullmatch, patterns, exports))
        read, write = (line.partition("=")[2] for line in exports)

        things = f"{server.base_url}/collection/{{}}/{{}}/things"
        assert requests.get(things.format("read", read), timeout=10).status_code == 200
        assert requests.post(things.format("write", write), json={}, timeout=10).ok


def test_only_the_missing_credential_is_made_up() -> None:
    with serving(CONNECTOME_READ_CREDENTIAL="given") as server:
        assert len(server.lines) == 2
        assert server.lines[0].startswith("export CONNECTOME_WRITE_CREDENTIAL=")


def test_a_credential_that_was_given_is_never_printed() -> None:
    with serving("--collection", "things", **CREDENTIALS) as server:
        for verb in ("read", "write", "nonsense"):
            for credential in CREDENTIALS.values():
                url = f"{server.base_url}/collection/{verb}/{credential}/things"
                requests.get(url, timeout=10)
        code, rest = server.stop(signal.SIGTERM)

        assert (code, rest) == (0, "")
        assert "from-outside" not in "".join(server.lines)


SEEDS = {
    "array.json": '[{"n": 1}, {"n": 2}]',
    "pretty.json": '[\n  {\n    "n": 1\n  },\n  {\n    "n": 2\n  }\n]\n',
    "lines.ndjson": '{"n": 1}\n\n{"n": 2}\n',
    "separators.ndjson": '{"n": 1, "t": "\u2028\x85"}\r\n{"n": 2}',
    "features.geojson": (
        '{"type": "FeatureCollection",\n "metadata": {}, "features": [{"n": 1}, {"n": 2}]}'
    ),
    "marked.json": '\ufeff[{"n": 1}, {"n": 2}]',
}


@pytest.mark.parametrize("name", SEEDS)
def test_a_seed_is_an_array_or_lines_or_features(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(SEEDS[name].encode())

    with serving("--seed", f"things={tmp_path / name}", **CREDENTIALS) as server:
        url = f"{server.base_url}/collection/read/read-from-outside/things"
        assert [one["n"] for one in requests.get(url, timeout=10).json()] == [1, 2]
        assert server.lines[0] == f"Collection things: 2 documents from {name}"


def test_a_seed_is_left_out_where_documents_are_kept(tmp_path: Path) -> None:
    seed = tmp_path / "seed.json"
    seed.write_text('[{"n": 1}]')
    options = ("--data", str(tmp_path / "new" / "data"), "--seed", f"things={seed}")

    with serving(*options, **CREDENTIALS) as server:
        things = f"{server.base_url}/collection/{{}}/things"
        requests.post(things.format("write/write-from-outside"), json={"n": 2}, timeout=10)
        assert server.stop(signal.SIGTERM)[0] == 0

    with serving(*options, **CREDENTIALS) as server:
        things = f"{server.base_url}/collection/{{}}/things"
        kept = requests.get(things.format("read/read-from-outside"), timeout=10).json()
        assert [one["n"] for one in kept] == [1, 2]
        assert server.lines[0] == "Collection things: has documents already, left as it is"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the earthquakes are not beside this checkout")
def test_the_earthquakes_are_1707_documents() -> None:
    with serving("--seed", f"quakes={SHARED / 'data' / 'earthquakes.json'}") as server:
        assert "1707" in server.lines[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("", "not JSON"),
        ("[1]", "element 0"),
        ('"text"', "FeatureCollection"),
        ('{"n": 1}\nnonsense\n', "line 2"),
        ('[{"n": 1}, {"n": NaN}]', "not JSON"),
        ('[{"_id": 1}, {"_id": 1}]', "duplicate _id 1"),
    ],
)
def test_a_bad_seed_is_one_clear_line(content: str | None, said: str, tmp_path: Path) -> None:
    seed = tmp_path / "seed.json"
    if content is not None:
        seed.write_text(content)

    line = ended("--port", "0", "--seed", f"things={seed}")

    assert "\n" not in line
    assert "things" in line
    assert said in line


def test_a_seed_without_a_name_is_a_usage_error() -> None:
    assert "NAME=FILE" in ended("--seed", "nothing")


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        line = ended("--port", str(port))

    assert "\n" not in line
    assert f"127.0.0.1 port {port}" in line
    assert "in use" in line


def test_an_unknown_host_is_one_clear_line() -> None:
    line = ended("--host", "no.such.host.invalid")

    assert "\n" not in line
    assert "no.such.host.invalid" in line


def test_a_data_directory_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with serving("--data", str(tmp_path)):
        line = ended("--port", "0", "--data", str(tmp_path))

    assert "\n" not in line
    assert "another server" in line


def test_a_credential_that_is_no_path_segment_is_one_line_without_it() -> None:
    line = ended("--port", "0", CONNECTOME_READ_CREDENTIAL=" spaces-around ")

    assert "\n" not in line
    assert "spaces-around" not in line


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "starlette.py").write_text("raise ModuleNotFoundError(name='starlette')")

    line = ended("--port", "0", PYTHONPATH=str(tmp_path))

    assert "\n" not in line
    assert "pip install 'connectome-dagster[local]'" in line


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from connectome_dagster.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    imported = set(re.findall(r"'(\w+)'", done.stdout.splitlines()[-1]))

    assert "click" in imported
    assert not imported & {"dagster", "pandas", "pyarrow", "starlette", "uvicorn", "bson", "numpy"}


def asked(server: ConnectomeServer, *arguments: str, **credentials: str) -> Any:
    """What a command that speaks to the server prints, and how it ends."""
    environ = {
        "CONNECTOME_BASE_URL": server.base_url,
        "CONNECTOME_READ_CREDENTIAL": server.read_credential,
        "CONNECTOME_WRITE_CREDENTIAL": server.write_credential,
        **credentials,
    }
    done = CliRunner().invoke(main, list(arguments), env=environ)
    for secret in (server.read_credential, server.write_credential):
        assert secret not in done.output
    return done


def test_probe_tells_the_guarantee_and_the_settings(connectome_server: ConnectomeServer) -> None:
    connectome_server.switches(response_path="data", client_id="any")
    collection = connectome_server.collection()

    done = asked(connectome_server, "probe", collection)

    assert done.exit_code == 0, done.output
    assert re.search(r"U1 +response_path = data ", done.output)
    assert re.search(r"U14 +error_form = status ", done.output)
    assert "verified" in done.output
    assert "response_path='data'" in done.output
    assert connectome_server.documents(collection) == []


def test_probe_tells_the_same_as_json(connectome_server: ConnectomeServer) -> None:
    done = asked(connectome_server, "probe", connectome_server.collection(), "--json")

    report = json.loads(done.output)
    assert (report["guarantee"], report["left"]) == ("enforced", 0)
    assert report["settings"] == {"idempotency": "id"}
    assert {f"U{number}" for number in range(1, 15)} <= {
        finding["question"] for finding in report["findings"]
    }


def test_probe_refuses_a_collection_with_documents(connectome_server: ConnectomeServer) -> None:
    collection = connectome_server.collection([{"title": "Movie ABC"}])

    done = asked(connectome_server, "probe", collection)

    assert done.exit_code == 2
    assert "it holds documents" in done.output
    assert len(connectome_server.documents(collection)) == 1


def test_probe_ends_with_1_where_it_leaves_documents(connectome_server: ConnectomeServer) -> None:
    connectome_server.switches(delete_body=False, delete_call=None)

    done = asked(connectome_server, "probe", connectome_server.collection())

    assert done.exit_code == 1
    assert "connectome_probe" in done.output


def test_reconcile_removes_what_is_there_twice(connectome_server: ConnectomeServer) -> None:
    note = {"load": "ab" * 12, "key": "cd" * 12, "attempt": "1a3185c5000abcde01"}
    collection = connectome_server.collection([{"n": 1, "_dagster": note} for _ in range(3)])

    done = asked(connectome_server, "reconcile", collection, "--load-id", "ab" * 12)
    again = asked(connectome_server, "reconcile", collection, "--load-id", "ab" * 12, "--json")

    assert "3 documents, 2 of them surplus" in done.output
    assert json.loads(again.output)["deleted"] == 0
    assert len(connectome_server.documents(collection)) == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["reconcile", "movies"], "--load"),
        (["reconcile", "movies", "--load", "a", "--load-id", "b"], "--load"),
        (["reconcile", "movies", "--load", "a", "--where", "[1]"], "--where"),
        (["reconcile", "movies", "--load", "a", "--where", "{"], "--where"),
        (["probe", "no/such"], "not a collection id"),
        (["probe", "movies", "--read-credential", "r"], "No such option"),
    ],
)
def test_what_cannot_be_meant_ends_with_2(
    connectome_server: ConnectomeServer, arguments: list[str], text: str
) -> None:
    done = asked(connectome_server, *arguments)

    assert done.exit_code == 2
    assert text in done.output


@pytest.mark.parametrize("command", [["probe", "movies"], ["reconcile", "movies", "--load", "a"]])
def test_without_a_credential_and_a_terminal_it_names_the_variable(
    connectome_server: ConnectomeServer, command: list[str]
) -> None:
    done = asked(connectome_server, *command, CONNECTOME_WRITE_CREDENTIAL="")

    assert done.exit_code == 2
    assert "CONNECTOME_WRITE_CREDENTIAL" in done.output


def test_a_refusal_of_the_service_ends_with_1(connectome_server: ConnectomeServer) -> None:
    done = asked(connectome_server, "probe", "0" * 24)

    assert done.exit_code == 1
    assert "check the collection id" in done.output
