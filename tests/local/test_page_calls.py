"""Every call that the page shows does what it says: executed as it is copied, in each language."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
import requests

from connectome_dagster.local.server import LocalServer
from tests.local.page_parts import PageParts, Snippet, with_values, with_variables

READ, WRITE = "read-credential-of-the-tests", "write-credential-of-the-tests"
VARIABLES = {"CONNECTOME_READ_CREDENTIAL": READ, "CONNECTOME_WRITE_CREDENTIAL": WRITE}
LANGUAGES = ["python", "curl", "javascript", "dagster"]
# A name that means something to a shell, to a template and to HTML.
AWKWARD = "{a}$HOME`id`\"b\"'c'\\%41&amp;<i>?#é"
TOOLS = {"curl": "curl", "javascript": "node"}


# How a name is written and how a credential is have nothing to do with each other: two cases do.
CASES = {"a plain name, with variables": "movies", "an awkward name, with values": AWKWARD}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def collection(case: str) -> str:
    return CASES[case]


@pytest.fixture(scope="module")
def running() -> Iterator[LocalServer]:
    with LocalServer(read_credential=READ, write_credential=WRITE) as server:
        yield server


@pytest.fixture
def server(running: LocalServer, collection: str) -> Iterator[LocalServer]:
    running.add_collection(collection)
    yield running
    running.drop_collection(collection)


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> str:
    tool = TOOLS.get(request.param)
    if tool is not None and shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    return str(request.param)


@pytest.fixture
def run(
    case: str,
    server: LocalServer,
    collection: str,
    language: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Runner:
    values = case.endswith("with values")
    for name, value in VARIABLES.items():
        if values:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    return Runner(server, collection, language, values=values)


class Runner:
    """Runs what the page shows now for one collection in one language."""

    def __init__(
        self, server: LocalServer, collection: str, language: str, *, values: bool
    ) -> None:
        self.server, self.collection, self.language = server, collection, language
        self._values = values

    def __call__(self, verb: str) -> Any:
        """What the call answers; what the asset returns, in Dagster."""
        text = self.shown(verb)
        if self.language == "dagster":
            return materialized(text)
        return json.loads(getattr(self, f"_{self.language}")(text))

    def shown(self, verb: str) -> str:
        parts = page(self.server, self.collection)
        snippet: Snippet = parts.snippets[verb, self.language]
        if not self._values:
            text = with_variables(snippet)
            assert READ not in text
            assert WRITE not in text
            return text
        text = with_values(snippet, credentials(self.server, parts.token))
        assert "environ" not in text
        assert "process.env" not in text
        assert "EnvVar" not in text
        return text

    def _python(self, text: str) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(text, "snippet", "exec"), {})  # noqa: S102 (what is copied is the test)
        printed = out.getvalue()
        return json.dumps(eval(printed, {}))  # noqa: S307 (what that printed)

    def _curl(self, text: str) -> str:
        return command(["sh", "-c", text])

    def _javascript(self, text: str) -> str:
        # Node prints objects as JavaScript; the answer is wanted as JSON.
        assert text.count("console.log(await response.json());") == 1
        asked = text.replace("await response.json()", "JSON.stringify(await response.json())")
        return command(["node", "--input-type=module", "--eval", asked])


def command(argv: list[str]) -> str:
    done = subprocess.run(
        argv, env=dict(os.environ), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def materialized(text: str) -> Any:
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(text, "snippet", "exec"), names)  # noqa: S102 (what is copied is the test)
    definitions: dg.Definitions = names["defs"]
    (asset,) = list(definitions.assets or [])
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([asset], resources=definitions.resources, instance=instance)
        assert result.success
        return result.output_for_node(asset.key.path[-1])


def page(server: LocalServer, collection: str) -> PageParts:
    answer = requests.get(server.base_url, params={"collection": collection}, timeout=10)
    assert answer.status_code == 200
    return PageParts(answer.text)


def credentials(server: LocalServer, token: str) -> dict[str, dict[str, str]]:
    headers = {"X-Connectome-Page": token, "Origin": server.base_url}
    answer = requests.post(f"{server.base_url}/page/credentials", headers=headers, timeout=10)
    assert answer.status_code == 200
    return dict(answer.json())


def as_sent(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what the service adds, and the note that rows of this package carry."""
    added = ("_id", "_dagster")
    return [{name: one[name] for name in one if name not in added} for one in documents]


def test_the_calls_work_on_an_empty_collection_one_after_the_other(run: Runner) -> None:
    first, second = {"title": "Example A", "amount": 10}, {"title": "Example B", "amount": 100}

    run("batchwrite")
    assert as_sent(run.server.documents(run.collection)) == [first, second]

    run("updatewithupsert")
    assert as_sent(run.server.documents(run.collection)) == [first | {"amount": 12}, second]

    run("batchdelete")
    assert run.server.documents(run.collection) == []

    run("updatewithupsert")
    assert as_sent(run.server.documents(run.collection)) == [first | {"amount": 12}]


def test_reading_finds_documents_by_fields_of_the_collections_own(run: Runner) -> None:
    awkward = 'it\'s "5" ${x} `y` \\n $HOME é'
    names = {"it's": 1, 'a "b" \\': 2.5, "${c} `d` é": "ü"}
    run.server.seed(run.collection, [{"sku": awkward, **names}, {"sku": "other", **names}])

    found = run("readwithquery")

    if run.language == "dagster":
        found = found.drop(columns="_id").to_dict(orient="records")
    else:
        found = as_sent(found)
    shown = {"sku": awkward, "it's": 1, 'a "b" \\': 2.5}
    assert found == [shown, {**shown, "sku": "other"}]


def test_the_writing_calls_touch_no_document_of_the_collections_own(run: Runner) -> None:
    own = [{"title": "Movie ABC", "amount": 10}, {"amount": 100}, {"title": None}]
    run.server.seed(run.collection, own)
    before = run.server.documents(run.collection)

    for verb in ("batchwrite", "updatewithupsert", "batchdelete"):
        run(verb)

    assert run.server.documents(run.collection) == before


@pytest.mark.parametrize("sample", [{"_id": 1}, {"a": {"b": 1}, "c": [1], "d": True}, {"": 1}])
def test_a_collection_without_plain_fields_is_read_with_an_empty_query(
    server: LocalServer, collection: str, sample: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    server.seed(collection, [sample])

    found = Runner(server, collection, "python", values=False)("readwithquery")

    assert found == server.documents(collection)


def test_credentials_that_a_url_takes_only_escaped_work_once_they_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with LocalServer(
        ["movies"], read_credential="read+%41?#&é\"'$x", write_credential="wr\\ite`{x}`"
    ) as server:
        for language in LANGUAGES:
            if (tool := TOOLS.get(language)) is not None and shutil.which(tool) is None:
                continue
            run = Runner(server, "movies", language, values=True)
            run("batchwrite")
            assert len(run("readwithquery")) == 2
            run("batchdelete")
        shown = requests.get(server.base_url, timeout=10).text

    assert "percent-encoded" in shown


def test_every_call_is_shown_in_every_language(server: LocalServer, collection: str) -> None:
    verbs = ["readwithquery", "batchwrite", "updatewithupsert", "batchdelete"]

    assert list(page(server, collection).snippets) == [
        (verb, language) for verb in verbs for language in LANGUAGES
    ]
