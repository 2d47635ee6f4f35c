"""Rows of a stream on disk, so that they can be read again after the last of them was seen.

Knows bytes in columns; not what they say.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, cast

import pyarrow as pa

from connectome_dagster.errors import ConfigurationError

if TYPE_CHECKING:
    from typing_extensions import Self


class Spool:
    """A temporary Arrow file in `TMPDIR`; gone when it is closed, or when the process ends.

    It takes about as many bytes as the rows are as JSON, and no memory but for the rows of one
    call. Write it to its end, then read it.

    Args:
        columns: how many columns of bytes.

    Example:
        >>> with Spool(2) as spool:
        ...     spool.write([b"a", b"b"], [b"1", b"2"])
        ...     list(spool.read())
        [([b'a', b'b'], [b'1', b'2'])]
    """

    def __init__(self, columns: int) -> None:
        self._schema = pa.schema([(str(at), pa.large_binary()) for at in range(columns)])
        self._file = cast("BinaryIO", tempfile.TemporaryFile(prefix="connectome-"))  # noqa: SIM115 - closed by __exit__
        self._writer: pa.RecordBatchStreamWriter | None = None
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, *columns: Sequence[bytes]) -> None:
        """Append rows.

        Raises:
            ConfigurationError: the disk takes no more.
        """
        arrays = [pa.array(column, pa.large_binary()) for column in columns]
        reason = ""
        try:
            if self._writer is None:
                self._writer = pa.ipc.new_stream(self._file, self._schema)
            self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
        except OSError as error:
            reason = (os.strerror(error.errno) if error.errno else "it failed").lower()
        if reason:
            raise ConfigurationError(
                "the rows of a stream are kept in a temporary file until all of them have been "
                f"looked at, and {tempfile.gettempdir()!r} does not take it ({reason}): name a "
                "folder with more room in TMPDIR, or hand in fewer rows at a time. Nothing was sent"
            )

    def read(self) -> Iterator[tuple[list[bytes], ...]]:
        """Give the rows as they were written, call by call; from the beginning each time.

        One reading at a time: the next one ends it.
        """
        if self._writer is None:
            return
        if not self._ended:
            self._writer.close()  # which writes the end where the file stands
            self._ended = True
        self._file.seek(0)
        for batch in pa.ipc.open_stream(self._file):
            yield tuple(column.to_pylist() for column in batch.columns)
