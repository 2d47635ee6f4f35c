from __future__ import annotations

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.errors import ConfigurationError
from connectome_dagster.transfer import spool as module
from connectome_dagster.transfer.spool import Spool


@given(st.lists(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=5)))
def test_what_was_written_is_read_as_often_as_wanted(
    chunks: list[list[tuple[bytes, bytes]]],
) -> None:
    with Spool(2) as spool:
        for chunk in chunks:
            spool.write([key for key, _ in chunk], [data for _, data in chunk])
        for _ in range(2):
            read = [list(zip(*columns, strict=True)) for columns in spool.read()]
            assert read == chunks


def test_a_reading_that_was_given_up_takes_nothing_from_the_next() -> None:
    with Spool(1) as spool:
        for number in range(50):
            spool.write([b"%d" % number] * 100)
        for _ in range(3):
            next(spool.read())
            assert [column[0] for (column,) in spool.read()] == [b"%d" % n for n in range(50)]


def test_nothing_written_is_nothing_to_read() -> None:
    with Spool(1) as spool:
        assert list(spool.read()) == []


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with suppress(ZeroDivisionError), Spool(1) as spool:
        spool.write([b"x"])
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_is_told_with_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        closed = False

        def write(self, _data: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def flush(self) -> None: ...

        def close(self) -> None: ...

        def tell(self) -> int:
            return 0

    monkeypatch.setattr(module.tempfile, "TemporaryFile", lambda **_: Full())
    spool = Spool(1)
    with pytest.raises(ConfigurationError, match=r"no space left .*TMPDIR.*Nothing was sent"):
        spool.write([b"x" * 100])
