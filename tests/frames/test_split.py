from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connectome_dagster.errors import MalformedResponse
from connectome_dagster.frames import split
from connectome_dagster.frames.exact import NotDocuments
from connectome_dagster.frames.split import (
    DOCUMENT_BYTES,
    FIRST_PIECE_BYTES,
    PIECE_BYTES,
    WRAPPER_BYTES,
    Boundaries,
    Splitter,
    boundaries,
    nests_deeper,
)
from tests.frames.cutting import BrokeOff, chunked, pieces_of
from tests.frames.documents import collections


def read(piece: bytes) -> list[Any]:
    """A strict parser that is not ours; numbers and Extended JSON stay as they are."""
    try:
        items = json.loads(b"[%s]" % piece, parse_float=str, parse_int=str)
    except (ValueError, RecursionError) as error:
        reason = str(error)
    else:
        if all(isinstance(item, dict) for item in items):
            return list(items)
        reason = "an item is not an object"
    raise NotDocuments(reason)


def read_until_it_ends(body: bytes, path: str | None, piece_bytes: int, arrived: list[Any]) -> None:
    for items in pieces_of([body], Splitter(path, piece_bytes), read):
        arrived += items


def feed(splitter: Splitter, chunk: bytes, times: int) -> None:
    for _ in range(times):
        splitter.feed(chunk)


def read_in(chunks: list[bytes], piece_bytes: int, path: str | None = None) -> list[Any]:
    splitter = Splitter(path, piece_bytes)
    return [item for items in pieces_of(chunks, splitter, read) for item in items]


def naive_boundaries(body: bytes) -> Boundaries:
    depth, in_string, escaped = 0, False, False
    commas: list[int] = []
    for at, code in enumerate(body):
        char = chr(code)
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "{[":
            depth += 1
        elif char in "}]":
            depth -= 1
            if depth < 0:
                return Boundaries(commas[-1] if commas else -1, commas[0] if commas else -1, at)
        elif char == "," and not depth:
            commas.append(at)
    return Boundaries(commas[-1] if commas else -1, commas[0] if commas else -1, -1)


def _escapes_only_in_strings(body: bytes) -> bool:
    """Outside of strings JSON has no backslash, and what one means there is nobody's business."""
    in_string = escaped = False
    for char in map(chr, body):
        if not in_string and char == "\\":
            return False
        if escaped:
            escaped = False
        elif in_string and char == "\\":
            escaped = True
        elif char == '"':
            in_string = not in_string
    return True


structure = st.text('{}[],"\\ a:1', max_size=60).map(str.encode)


@settings(max_examples=300, deadline=None)
@given(structure.filter(_escapes_only_in_strings))
@example(b'"\\\\",{"a":"\\\\\\"]"}],')
def test_boundaries_are_what_a_scan_byte_by_byte_finds(body: bytes) -> None:
    assert boundaries(body) == naive_boundaries(body)


@settings(deadline=None)
@given(collections().map(",".join), st.integers(0, 400))
def test_boundaries_of_documents_cut_anywhere_are_what_a_scan_finds(text: str, end: int) -> None:
    body = (text + "] \n").encode()
    assert boundaries(body) == naive_boundaries(body)
    assert boundaries(body[:end]) == naive_boundaries(body[:end])


@settings(deadline=None)
@given(collections().map(",".join), st.integers(0, 400))
def test_a_boundary_within_a_size_is_the_last_one_there_or_the_first_behind_it(
    text: str, wanted: int
) -> None:
    body = text.encode()
    whole = naive_boundaries(body[:wanted]).last_comma
    expected = whole if whole >= 0 else naive_boundaries(body).first_comma
    assert boundaries(body, wanted).last_comma == expected


WRAPPERS = [
    (b"%s", None),
    (b" \r\n%s\n\t", None),
    (b'{"data":%s}', None),
    (b'{"data":%s}', "data"),
    (
        b'{"note":"see [1], or \\"[2]\\" {", "n":{"d":[1,"]"]}, "data" : %s , "o":{"x":[1]}}\n',
        None,
    ),
    (b'{"other":[{"x":1}],"result":{"no":[0],"items":%s,"x":null},"z":[2]}', "result.items"),
]
wrappers = st.sampled_from(WRAPPERS)


@settings(max_examples=120, deadline=None)
@given(collections(), wrappers, st.lists(st.integers(0, 10**6), max_size=8), st.integers(1, 300))
def test_documents_do_not_depend_on_how_the_body_was_cut(
    texts: list[str], wrapper: tuple[bytes, str | None], cuts: list[int], piece_bytes: int
) -> None:
    frame, path = wrapper
    body = frame % f"[{','.join(texts)}]".encode()
    assert read_in(chunked(body, cuts), piece_bytes, path) == read(",".join(texts).encode())


@settings(max_examples=40, deadline=None)
@given(collections(max_size=4), wrappers, st.integers(1, 40))
def test_documents_that_arrive_byte_by_byte_are_whole(
    texts: list[str], wrapper: tuple[bytes, str | None], piece_bytes: int
) -> None:
    frame, path = wrapper
    body = frame % f"[{','.join(texts)}]".encode()
    assert read_in(chunked(body, range(len(body))), piece_bytes, path) == read(
        ",".join(texts).encode()
    )


ALIKE = [
    {"a": 1, "items": [{"a": 1, "b": "]"}, {"a": 2, "b": '},{"a":'}, {"a": {"a": [{"a": 3}]}}]},
    {"a": 2, "items": []},
    {"a": 3, "text": '"},{\\"a\\":1}],[', "items": [{"a": 1}, {"a": 2}]},
    {},
    {"a": "x\\"},
]


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", " : ")])
@pytest.mark.parametrize("piece_bytes", [1, 7, 20, 50, 100, 1000])
def test_items_inside_that_look_like_documents_are_cut_again(
    piece_bytes: int, separators: tuple[str, str]
) -> None:
    body = json.dumps(ALIKE * 3, separators=separators).encode()
    expected = read(body[1:-1])
    for size in (1, 3, 16, 64, len(body)):
        assert read_in(chunked(body, range(0, len(body), size)), piece_bytes) == expected


@pytest.mark.parametrize("piece_bytes", [1, 30, 1000])
@pytest.mark.parametrize(("frame", "path"), WRAPPERS)
def test_a_body_that_ends_at_any_byte_before_its_end_is_reported(
    frame: bytes, path: str | None, piece_bytes: int
) -> None:
    body = (frame % json.dumps(ALIKE, separators=(",", ":")).encode()).rstrip()
    whole = read_in([body], piece_bytes, path)
    for end in range(len(body)):
        arrived: list[Any] = []
        with pytest.raises((BrokeOff, MalformedResponse)):
            read_until_it_ends(body[:end], path, piece_bytes, arrived)
        assert arrived == whole[: len(arrived)]


@settings(deadline=None)
@given(collections(max_size=4), wrappers, st.integers(1, 200), st.floats(0, 1, exclude_max=True))
def test_a_body_that_breaks_off_gives_a_beginning_of_its_documents(
    texts: list[str], wrapper: tuple[bytes, str | None], piece_bytes: int, part: float
) -> None:
    frame, path = wrapper
    body = (frame % f"[{','.join(texts)}]".encode()).rstrip()
    whole = read(",".join(texts).encode())
    arrived: list[Any] = []
    with pytest.raises(BrokeOff):
        read_until_it_ends(body[: int(len(body) * part)], path, piece_bytes, arrived)
    assert arrived == whole[: len(arrived)]


@pytest.mark.parametrize("piece_bytes", [1, 2, 4, 8, 1000])
@pytest.mark.parametrize(
    "body",
    [
        b'[,{"a":1}]',
        b'[{"a":1},]',
        b'[{"a":1},,{"a":2}]',
        b'[{"a":1}, ,{"a":2}]',
        b'[{"a":1} {"a":2}]',
        b'[{"a":1}] [{"a":2}]',
        b'[{"a":1}],[{"a":2}]',
        b'[{"a":1}]]',
        b'[{"a":1}]}',
        b'[{"a":1},{"a":2}] x',
        b'[{"a":1},null]',
        b'[null,{"a":1}]',
        b"[1,2]",
        b'["a","b"]',
        b'[[{"a":1}]]',
        b"[,]",
        b'[{"a":1}},{"b":{"c":1}]',
        b'{"data":[{"a":1},]}',
        b'{"data":[{"a":1}],"more":[{"b":1}]}',
        b"<html>",
        b'"text"',
        b"null",
        b"17",
        b"\xef\xbb\xbf[]",
        b'{"error":"no"}',
        b"{}",
        b"{}:",
        b'{}:[{"a":1}]',
        b"}",
        b"]",
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_what_is_no_array_of_documents_is_refused_however_it_arrives(
    body: bytes, piece_bytes: int, step: int
) -> None:
    with pytest.raises((MalformedResponse, BrokeOff)):
        read_in(chunked(body, range(0, len(body), step)), piece_bytes)


@pytest.mark.parametrize("body", [b"[]", b" [ ] ", b'{"data":[]}', b'{"a":1,"data": [ ] ,"b":{}}'])
def test_no_documents_are_no_error(body: bytes) -> None:
    assert read_in([body], 100) == []
    assert read_in(chunked(body, range(len(body))), 1) == []


def test_a_name_that_is_written_with_escapes_is_found_by_response_path() -> None:
    assert read_in([b'{"d\\u0061ta":[{"a":"1"}]}'], 10, "data") == [{"a": "1"}]


@pytest.mark.parametrize("path", ["other", "data.items", "items"])
def test_a_response_path_that_is_not_there_is_an_error_that_names_it(path: str) -> None:
    with pytest.raises(MalformedResponse, match=f"response_path='{path}'"):
        read_in([b'{"data":[{"a":1}]}'], 10, path)
    with pytest.raises(MalformedResponse, match=f"response_path='{path}'"):
        read_in([b'[{"a":1}]'], 10, path)


def test_a_wrapper_that_does_not_come_to_its_documents_is_given_up() -> None:
    splitter = Splitter()
    with pytest.raises(MalformedResponse, match="response_path"):
        feed(splitter, b'{"x":1,"y":' * 100, WRAPPER_BYTES // 1024 + 1)


def test_a_document_without_end_is_given_up() -> None:
    splitter = Splitter()
    splitter.feed(b'[{"a":"')
    chunk = b"x" * (8 << 20)
    with pytest.raises(MalformedResponse, match="MiB"):
        feed(splitter, chunk, 2 * (DOCUMENT_BYTES // len(chunk)) + 2)


def test_a_piece_is_not_much_larger_than_asked_for() -> None:
    body = json.dumps([{"a": n, "b": "x" * 50} for n in range(2000)]).encode()
    pieces: list[int] = []

    def take(piece: bytes) -> int:
        pieces.append(len(piece))
        return len(read(piece))

    counts = list(pieces_of(chunked(body, range(0, len(body), 700)), Splitter(None, 4096), take))
    assert sum(counts) == 2000
    assert max(pieces) <= 4096 + 700
    assert len(pieces) < 2 * len(body) / 4096


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("step", [1, 700, 20_000, 10**6])
def test_pieces_have_their_size_however_large_the_chunks_are(
    step: int, separators: tuple[str, str]
) -> None:
    documents = [{"a": n, "b": "x" * 50} for n in range(2000)]
    body = json.dumps(documents, separators=separators).encode()
    sizes: list[int] = []

    def take(piece: bytes) -> list[Any]:
        sizes.append(len(piece))
        return read(piece)

    pieces = pieces_of(chunked(body, range(0, len(body), step)), Splitter(None, 4096), take)
    assert [int(item["a"]) for items in pieces for item in items] == list(range(2000))
    assert all(4096 - 100 < size <= 4096 for size in sizes[:-1])


def test_the_first_piece_is_small_and_those_after_it_grow_to_their_full_size() -> None:
    body = json.dumps([{"a": n, "b": "x" * 100} for n in range(60_000)]).encode()
    step = 10_000
    splitter = Splitter()
    sizes: list[int] = []
    for at in range(0, len(body), step):
        piece = splitter.feed(body[at : at + step])
        sizes += [] if piece is None else [len(piece)]
    assert FIRST_PIECE_BYTES - step < sizes[0] < FIRST_PIECE_BYTES + step
    assert sizes == sorted(sizes[:3]) + sizes[3:]
    assert all(PIECE_BYTES - step < size < PIECE_BYTES + step for size in sizes[2:])


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_wrapper_is_looked_at_a_few_times_however_it_arrives(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = 0
    look = split._array_in_wrapper

    def counting(head: bytes, path: str | None) -> int:
        nonlocal looked_at
        looked_at += len(head)
        return look(head, path)

    monkeypatch.setattr(split, "_array_in_wrapper", counting)
    body = b'{"note":"%b","data":[{"a":"1"}]}' % (b"x" * (WRAPPER_BYTES - 100))
    assert read_in(chunked(body, range(0, len(body), step)), 10) == [{"a": "1"}]
    assert looked_at <= 4 * len(body)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 3000),
    st.sampled_from([("[", "]"), ('{"a":', "}"), ('[{"b":[],"a":', '},"]]]"]')]),
    st.text('[]{}"\\x', max_size=40).map(lambda text: json.dumps(text * 20)),
)
def test_deep_nesting_is_seen_before_a_parser_meets_it(
    levels: int, brackets: tuple[str, str], text: str
) -> None:
    opening, closing = brackets
    body = f'{{"t":{text},"a":{opening * levels}1{closing * levels}}}'.encode()
    deep = levels * opening.count("{") + levels * opening.replace("[]", "").count("[")
    # Only brackets that text holds before can hide a level, and no text here holds that many.
    assert nests_deeper(body, 120) is (deep + 1 > 120) or 120 - 1 <= deep <= 2500


def test_text_full_of_brackets_is_not_nesting() -> None:
    assert not nests_deeper(json.dumps([{"range": "[0, 10)"}] * 5000).encode(), 120)
    assert nests_deeper(b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}", 120)
