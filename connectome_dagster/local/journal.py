"""The documents' text in SQLite, so that what was acknowledged is there after a crash.

Knows nothing of queries: it takes whole changes, and gives documents back once, at the start.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

FILE_NAME = "connectome.sqlite3"


class JournalError(Exception):
    """The data directory cannot be used."""


class Journal:
    """One SQLite database: sequence number, collection and text of every document.

    Args:
        directory: where the file is kept; it is made if it is not there.

    Raises:
        JournalError: the directory cannot be written, holds another program's file, or another
            server uses it.
    """

    def __init__(self, directory: Path) -> None:
        trouble = ""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                directory / FILE_NAME,
                isolation_level=None,
                check_same_thread=False,
                timeout=0,
            )
        except (OSError, sqlite3.Error) as error:
            trouble = str(error)
        else:
            try:
                self._prepare()
            except sqlite3.Error as error:
                self._database.close()
                trouble = str(error)
        if trouble:
            hint = " (does another server use it?)" if "locked" in trouble else ""
            raise JournalError(f"cannot keep documents in {directory}: {trouble}{hint}")

    def _prepare(self) -> None:
        # One server owns the file: its documents live in memory too, and two would disagree.
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        # A commit is in the operating system's hands before the answer goes out, so it outlives
        # kill -9 of the server. Only a power cut may take the last commits; FULL would save them
        # for one disk flush each, which is thirty times slower.
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS documents"
            " (seq INTEGER PRIMARY KEY, collection TEXT NOT NULL, text BLOB NOT NULL)"
        )
        self._database.execute(
            "CREATE INDEX IF NOT EXISTS documents_by_collection ON documents (collection)"
        )
        # Takes the exclusive lock now rather than at the first write.
        self._database.execute("BEGIN EXCLUSIVE")
        self._database.execute("COMMIT")

    def last_seq(self) -> int:
        """The highest sequence number in use, 0 if there are no documents."""
        (last,) = self._database.execute("SELECT max(seq) FROM documents").fetchone()
        return last or 0

    def load(self, collection: str) -> list[tuple[int, bytes]]:
        """Sequence number and text of a collection's documents, in their natural order.

        Raises:
            JournalError: the file is damaged.
        """
        trouble = ""
        try:
            return self._database.execute(
                "SELECT seq, text FROM documents WHERE collection = ? ORDER BY seq", (collection,)
            ).fetchall()
        except sqlite3.Error as error:
            trouble = str(error)
        raise JournalError(f"cannot read the documents of {collection}: {trouble}")

    def write(
        self,
        collection: str,
        *,
        put: Iterable[tuple[int, bytes]] = (),
        remove: Iterable[int] = (),
    ) -> None:
        """Apply one change whole or not at all.

        Args:
            collection: where the change is.
            put: sequence number and text of documents that are new or replaced.
            remove: sequence numbers of documents that go.

        Raises:
            JournalError: SQLite could not write; nothing of the change is there.
        """
        trouble = ""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(
                "INSERT INTO documents (seq, collection, text) VALUES (?, ?, ?)"
                " ON CONFLICT (seq) DO UPDATE SET text = excluded.text",
                ((seq, collection, text) for seq, text in put),
            )
            self._database.executemany(
                "DELETE FROM documents WHERE seq = ?", ((seq,) for seq in remove)
            )
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            trouble = str(error)
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
        if trouble:
            raise JournalError(f"cannot write documents: {trouble}")

    def drop(self, collection: str) -> None:
        """Forget a collection's documents."""
        self._database.execute("DELETE FROM documents WHERE collection = ?", (collection,))

    def close(self) -> None:
        """Let go of the file; closing twice is harmless."""
        self._database.close()


class NoJournal:
    """In the place of a `Journal` where nothing is kept: the documents in memory are all there is.

    A database in memory would hold every document a second time, for a third of a write's time.
    """

    def last_seq(self) -> int:
        """No sequence number is in use."""
        return 0

    def load(self, _collection: str) -> list[tuple[int, bytes]]:
        """There are no documents."""
        return []

    def write(
        self,
        collection: str,
        *,
        put: Iterable[tuple[int, bytes]] = (),
        remove: Iterable[int] = (),
    ) -> None:
        """Keep nothing."""

    def drop(self, collection: str) -> None:
        """There is nothing to forget."""

    def close(self) -> None:
        """There is nothing to let go of."""
