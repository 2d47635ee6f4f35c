"""The pytest plugin as the package's users have it: loaded always, paid for only when used."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests

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
    example = documented.partition("Example:\n")[2]
    lines = [line[8:] for line in example.splitlines()]
    pytester.makepyfile("from connectome_dagster import Connectome\n" + "\n".join(lines))

    pytester.runpytest_subprocess("-W", "error", "-p", "no:xdist").assert_outcomes(passed=1)


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
