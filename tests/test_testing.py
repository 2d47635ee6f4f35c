"""The pytest plugin as the package's users have it: loaded always, paid for only when used."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import requests

from connectome_dagster.local.conditions import Conditions
from connectome_dagster.testing import ConnectomeServer, connectome_server

pytest_plugins = ["pytester"]


def test_a_test_gets_a_server_that_answers(connectome_server: ConnectomeServer) -> None:
    movies = connectome_server.collection([{"title": "Movie ABC"}])
    url = f"{connectome_server.base_url}/collection"

    read = requests.get(f"{url}/read/{connectome_server.read_credential}/{movies}", timeout=10)
    requests.post(
        f"{url}/write/{connectome_server.write_credential}/{movies}",
        json={"title": "Movie BDD"},
        timeout=10,
    )

    assert [movie["title"] for movie in read.json()] == ["Movie ABC"]
    titles = [movie["title"] for movie in connectome_server.documents(movies)]
    assert titles == ["Movie ABC", "Movie BDD"]


def test_collections_of_one_test_are_apart(connectome_server: ConnectomeServer) -> None:
    one, other = connectome_server.collection(), connectome_server.collection()

    assert connectome_server.seed(one, [{"n": 1}, {"n": 2}]) == 2

    assert re.fullmatch("[0-9a-f]{24}", one)
    assert len(connectome_server.documents(one)) == 2
    assert connectome_server.documents(other) == []


def test_a_foreign_collection_is_refused(connectome_server: ConnectomeServer) -> None:
    with pytest.raises(ValueError, match=r"\.collection\(\)"):
        connectome_server.seed("foreign", [{"n": 1}])
    with pytest.raises(ValueError, match=r"\.collection\(\)"):
        connectome_server.documents("foreign")


def test_a_collection_can_have_the_id_that_a_pipeline_has_in_its_code(
    connectome_server: ConnectomeServer,
) -> None:
    assert connectome_server.collection([{"n": 1}], name="movies") == "movies"
    assert [document["n"] for document in connectome_server.documents("movies")] == [1]
    with pytest.raises(ValueError, match="'movies' already"):
        connectome_server.collection(name="movies")


@pytest.mark.parametrize("_turn", [1, 2])
def test_what_is_due_after_a_test_does_not_reach_the_next_one_of_the_same_name(
    connectome_server: ConnectomeServer, _turn: int
) -> None:
    connectome_server.collection(name="movies")
    connectome_server.faults.add("later", verb="batchwrite", seconds=0.05)
    answer = requests.post(
        f"{connectome_server.base_url}/collection/batchwrite/{connectome_server.write_credential}"
        "/movies",
        json=[{"n": 1}],
        timeout=10,
    )
    assert answer.status_code == 500
    assert connectome_server.documents("movies") == []


def test_a_repr_shows_no_credential(connectome_server: ConnectomeServer) -> None:
    assert connectome_server.read_credential not in repr(connectome_server)
    assert connectome_server.write_credential not in repr(connectome_server)


def test_a_test_does_not_see_what_another_one_left(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import requests

        SEEN = []

        def url(server, collection):
            return f"{server.base_url}/collection/read/{server.read_credential}/{collection}"

        def test_first(connectome_server):
            SEEN.append((connectome_server.base_url, connectome_server.collection([{"n": 1}])))
            assert len(requests.get(url(connectome_server, SEEN[0][1])).json()) == 1

        def test_second(connectome_server):
            assert connectome_server.base_url == SEEN[0][0]
            assert connectome_server.collection() != SEEN[0][1]
            assert requests.get(url(connectome_server, SEEN[0][1])).status_code == 404
        """
    )

    pytester.runpytest_subprocess("-W", "error", "-p", "no:xdist").assert_outcomes(passed=2)


def test_the_documented_example_runs(pytester: pytest.Pytester) -> None:
    documented = connectome_server.__doc__
    assert documented is not None
    # From Python 3.13 on docstrings come without their indentation.
    example = textwrap.dedent(documented.partition("Example:\n")[2])
    pytester.makepyfile(f"from connectome_dagster import Connectome\n{example}")

    pytester.runpytest_subprocess("-W", "error", "-p", "no:xdist").assert_outcomes(passed=1)


def test_switches_and_faults_are_of_one_tests_collections(
    connectome_server: ConnectomeServer,
) -> None:
    whole = connectome_server._server
    movies = connectome_server.collection([{"n": 1}, {"n": 2}])
    whole.add_collection("somebody-elses")
    whole.seed("somebody-elses", [{"n": 1}, {"n": 2}])

    def read(collection: str) -> requests.Response:
        url = f"{connectome_server.base_url}/collection/read/{connectome_server.read_credential}"
        return requests.get(f"{url}/{collection}", timeout=10)

    connectome_server.switches(page_cap=1)
    switches = connectome_server.switches(response_path="data")
    connectome_server.faults.add("error", nth=2)
    answers = [read(movies), read("somebody-elses"), read(movies), read("somebody-elses")]
    later = connectome_server.collection([{"n": 1}, {"n": 2}])

    assert switches.changed() == {"page_cap": 1, "response_path": "data"}
    assert connectome_server.switches() == switches
    assert [answer.status_code for answer in answers] == [200, 200, 500, 200]
    assert len(answers[0].json()["data"]) == len(read(later).json()["data"]) == 1
    assert len(answers[1].json()) == 2
    assert [entry.fault for entry in connectome_server.log] == [None, "error", None]
    assert {entry.collection for entry in connectome_server.log} == {movies, later}
    whole.drop_collection("somebody-elses")


def test_a_test_sees_what_was_applied_and_in_which_order(
    connectome_server: ConnectomeServer,
) -> None:
    movies = connectome_server.collection([{"_id": "planted"}])
    url = f"{connectome_server.base_url}/collection/write/{connectome_server.write_credential}"
    connectome_server.faults.add("later", verb="write", nth=1, seconds=0.1)

    for name in ("first", "second"):
        requests.post(f"{url}/{movies}", json={"_id": name}, timeout=10)
    connectome_server.quiesce()

    assert [entry.inserted for entry in connectome_server.log] == [("first",), ("second",)]
    assert [one.inserted for _, one in connectome_server.changes] == [("second",), ("first",)]
    assert connectome_server.faults.strikes() == [1]


def test_the_server_can_refuse_connections_for_a_while(connectome_server: ConnectomeServer) -> None:
    movies = connectome_server.collection()
    url = f"{connectome_server.base_url}/collection/read/{connectome_server.read_credential}"

    with connectome_server.refusing(), pytest.raises(requests.ConnectionError, match="refused"):
        requests.get(f"{url}/{movies}", timeout=10)

    assert requests.get(f"{url}/{movies}", timeout=10).json() == []
    assert len(connectome_server.log) == 1


def test_a_wrong_switch_or_fault_changes_nothing(connectome_server: ConnectomeServer) -> None:
    with pytest.raises(ValueError, match="there is no switch 'pagecap'"):
        connectome_server.switches(page_cap=1, pagecap=2)
    with pytest.raises(ValueError, match="there is no fault 'explode'"):
        connectome_server.faults.add("explode")  # type: ignore[arg-type]

    assert connectome_server.switches().changed() == {}
    assert connectome_server.faults.faults == []


def test_switches_and_faults_end_with_their_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_first(connectome_server):
            connectome_server.switches(page_cap=1)
            connectome_server.faults.add("reset")

        def test_second(connectome_server):
            assert connectome_server.switches().changed() == {}
            assert connectome_server.faults.faults == []
            assert connectome_server.log == []
        """
    )

    pytester.runpytest_subprocess("-W", "error", "-p", "no:xdist").assert_outcomes(passed=2)


def test_a_test_costs_less_than_50_ms(connectome_server: ConnectomeServer) -> None:
    server = connectome_server._server
    spent = []
    for _ in range(5):
        began = time.process_time()
        one = ConnectomeServer(server, Conditions())
        one.collection([{"n": n} for n in range(100)])
        one.switches(page_cap=1)
        one.faults.add("error")
        one._forget()
        spent.append(time.process_time() - began)

    assert min(spent) < 0.05


def test_the_lines_that_the_docstrings_show_run(pytester: pytest.Pytester) -> None:
    shown = [
        line.strip()
        for member in (ConnectomeServer.switches, ConnectomeServer.faults.fget)
        for line in str(member.__doc__).partition("Example:\n")[2].splitlines()
        if line.strip()
    ]
    assert len(shown) == 2
    body = "".join(f"    {line}\n" for line in shown)
    pytester.makepyfile(f"def test_shown(connectome_server):\n{body}")

    pytester.runpytest_subprocess("-W", "error", "-p", "no:xdist").assert_outcomes(passed=1)


def test_the_examples_of_the_page_on_the_local_server_run(pytester: pytest.Pytester) -> None:
    page = Path(__file__).parents[1] / "docs" / "local-server.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    tests = [block for block in blocks if "def test_" in block]
    assert len(tests) >= 2
    for number, block in enumerate(tests):
        pytester.makepyfile(**{f"test_example_{number}": block})

    result = pytester.runpytest_subprocess("-W", "error", "-p", "no:xdist")

    result.assert_outcomes(passed=len(tests))


def test_without_the_extra_only_the_tests_that_use_it_fail(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "starlette.py").write_text("raise ModuleNotFoundError(name='starlette')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pytester.makepyfile(
        """
        def test_that_uses_it(connectome_server):
            pass

        def test_that_does_not():
            pass
        """
    )

    result = pytester.runpytest_subprocess("-p", "no:xdist")

    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(["*pip install 'connectome-dagster?local?'*"])


def test_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, connectome_dagster.testing\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    imported = set(re.findall(r"'(\w+)'", done.stdout))

    assert "pytest" in imported
    assert not imported & {"dagster", "pandas", "pyarrow", "starlette", "uvicorn", "bson", "numpy"}
