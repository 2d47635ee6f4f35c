"""The calls as text: whatever a collection's documents hold, all languages say the same."""

from __future__ import annotations

import ast
import json
import shlex
from typing import Any
from urllib.parse import unquote

from hypothesis import given, settings
from hypothesis import strategies as st

from connectome_dagster.local.calls import NAME_CHARACTERS, VALUE_CHARACTERS, Call, calls, forms

URL = "http://127.0.0.1:8787"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=70) | st.text(
    "\"'`\\${}%&<>#?!*$.abc", max_size=12
)
SCALAR = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXT
)
DOCUMENTS = st.dictionaries(TEXT, SCALAR | st.lists(SCALAR, max_size=2), max_size=5)
# What may be the id of a collection: a segment of a path that can be printed.
NAMES = TEXT.filter(lambda name: name.isprintable() and "/" not in name and name != "")


def text(call: Call, language: str) -> str:
    snippet = call.snippets[language]
    return "".join(part if isinstance(part, str) else part.stand_in for part in snippet)


def sent_by_python(call: Call) -> tuple[str, Any]:
    """Address, but for the credential, and body of the Python call."""
    (request,) = (
        node
        for node in ast.walk(ast.parse(text(call, "python")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("requests.")
    )
    assert ast.unparse(request.func) == f"requests.{call.method.lower()}"
    arguments = {keyword.arg: keyword.value for keyword in request.keywords}
    address = eval(ast.unparse(request.args[0]), {"credential": "…"})  # noqa: S307 (an f-string)
    return address, ast.literal_eval(arguments["json"])


def sent_by_curl(call: Call) -> tuple[str, Any]:
    words = shlex.split(text(call, "curl"))
    assert words[words.index("--request") + 1] == call.method
    variable = f"$CONNECTOME_{call.role.upper()}_CREDENTIAL"
    return words[-1].replace(variable, "…"), json.loads(words[words.index("--data") + 1])


def sent_by_javascript(call: Call) -> tuple[str, Any]:
    code = text(call, "javascript")
    address = code.split("`")[1].replace("${credential}", "…")
    assert f'method: "{call.method}"' in code
    body = code.partition("JSON.stringify(")[2].partition("),\n  },\n")[0]
    return address, json.loads(body)


def asset_of_dagster(call: Call) -> dict[str, Any]:
    """The constants that the asset hands to its collection, by place or name."""
    tree = ast.parse(text(call, "dagster"))
    (asset,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    given: dict[str, Any] = {}
    for node in ast.walk(asset):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given |= {f"{name} {n}": ast.literal_eval(one) for n, one in enumerate(node.args)}
            given |= {f"{name} {one.arg}": ast.literal_eval(one.value) for one in node.keywords}
    return given


@settings(deadline=None)
@given(NAMES, st.none() | DOCUMENTS)
def test_every_language_sends_the_same_to_the_same_place(
    name: str, sample: dict[str, Any] | None
) -> None:
    for call in calls(URL, name, sample):
        address, body = sent_by_python(call)

        assert sent_by_curl(call) == (address, body)
        assert sent_by_javascript(call) == (address, body)
        *start, last = address.split("/")
        assert "/".join(start) == f"{URL}/collection/{call.verb}/…"
        assert unquote(last) == name
        assert asset_of_dagster(call)["connectome.collection 0"] == name


@settings(deadline=None)
@given(DOCUMENTS)
def test_dagster_asks_for_what_the_others_ask_for(sample: dict[str, Any]) -> None:
    read = calls(URL, "movies", sample)[0]
    _, body = sent_by_python(read)

    asset = asset_of_dagster(read)

    assert asset.pop("connectome.collection 0") == "movies"
    assert asset.pop("collection.find 0") == body.pop("query")
    assert asset == {f"collection.find {name}": value for name, value in body.items()}


@settings(deadline=None)
@given(DOCUMENTS)
def test_the_example_asks_for_short_plain_fields_that_the_document_has(
    sample: dict[str, Any],
) -> None:
    _, body = sent_by_python(calls(URL, "movies", sample)[0])

    for name in body.get("project", {}):
        assert name in sample
        assert name.isprintable()
        assert len(name) <= NAME_CHARACTERS
    for name, condition in body["query"].items():
        value = condition["$gte"] if isinstance(condition, dict) else condition
        assert (value, type(value)) == (sample[name], type(sample[name]))
        assert len(str(value)) <= VALUE_CHARACTERS


def test_the_empty_collections_example_is_the_services_own() -> None:
    _, body = sent_by_python(calls(URL, "movies")[0])

    assert body == {
        "query": {"amount": {"$gte": 30}},
        "project": {"amount": 1, "title": 1},
        "sort": {"amount": 1},
        "limit": 10,
    }


@given(NAMES)
def test_a_credential_is_the_same_in_all_its_forms(value: str) -> None:
    written = forms(value)

    assert written["value"] == value
    assert ast.literal_eval(written["literal"]) == value
    assert unquote(written["path"]) == value
    assert json.loads(written["quoted"]) == ast.literal_eval(written["quoted"]) == written["path"]
    assert shlex.split(f'"{written["path"]}"') == [written["path"]]
