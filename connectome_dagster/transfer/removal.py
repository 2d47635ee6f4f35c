"""The questions to a service about deletes, asked last, and the removal of what a probe planted.

A DELETE whose body is lost on the way may mean everything (U11): so this is for a collection that
holds nothing else, and it looks before the one request that has no body.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from connectome_dagster.api import endpoints
from connectome_dagster.api.endpoints import Call
from connectome_dagster.errors import ConnectomeError
from connectome_dagster.transfer.findings import Finding, Question
from connectome_dagster.transfer.questions import PLAIN_CALLS, plain_call
from connectome_dagster.transfer.scratch import MARK, Document, Scratch, refused

# Where only the plain delete works, documents go one by one: so many of them.
MAX_SINGLE_DELETES = 200


@dataclass
class Removal:
    """Which deletes work; from the strongest to the weakest, `clean` takes the first that does.

    Attributes:
        scratch: the collection.
        everything: whether what others have written there may be removed too.
        by_query: whether `batchdelete` with a query removes what it finds.
        empty_is_all: whether a DELETE without a body removes everything.
        single: method and verb of a plain delete that works.
    """

    scratch: Scratch
    everything: bool
    by_query: bool | None = None
    empty_is_all: bool = False
    single: tuple[str, str] | None = field(default=None)

    def ask(self) -> list[Finding]:
        """U11 and the rest of U10: what a DELETE with and without a body does."""
        if self._spares_others():
            names: tuple[tuple[Question, str], ...] = (
                *(("U11", name) for name in ("delete_body", "empty_delete_is_all")),
                ("U10", "delete_call"),
            )
            return [Finding(asked, name, None, _NOT_TRIED, known=False) for asked, name in names]
        findings = [self._with_body()]
        findings.append(self._single())
        findings.append(self._without_body())
        return findings

    def _with_body(self) -> Finding:
        scratch = self.scratch
        scratch.plant(*(scratch.document("canary", n=n) for n in (1, 2)))
        seen = scratch.ask(
            endpoints.batch_delete(scratch.collection, scratch.document("canary", n=1))
        )
        gone, other_gone = (not scratch.holds("canary", n=n) for n in (1, 2))
        self.by_query = gone and not other_gone
        if self.by_query:
            told = "a DELETE removes what its query finds, and nothing else"
            return Finding("U11", "delete_body", True, told)
        if gone:
            self.empty_is_all = True
            told = "a DELETE with a query removed other documents as well: its body does not arrive"
        elif refused(seen):
            told = f"a DELETE with a query is refused (status {seen.status}, {seen.excerpt[:120]})"
        else:
            told = "a DELETE with a query is acknowledged and removes nothing"
        told += "; delete, replace and reconcile cannot work here"
        return Finding("U11", "delete_body", False, told, {"verify": "always"})

    def _single(self) -> Finding:
        scratch = self.scratch
        calls = PLAIN_CALLS["delete"]
        scratch.plant(*(scratch.document(f"delete {at}") for at in range(len(calls))))
        refusals = [
            refused(scratch.ask(self._one(call, scratch.document(f"delete {at}"))))
            for at, call in enumerate(calls)
        ]
        finding = plain_call("delete", refusals, lambda at: not scratch.holds(f"delete {at}"))
        if isinstance(finding.value, str):
            method, _, verb = finding.value.partition(" ")
            self.single = (method, verb)
        return finding

    def _one(self, call: tuple[str, str], query: Document) -> Call:
        method, verb = call
        body = msgspec.json.encode(query)
        return Call(verb, method, self.scratch.collection, "write", body, repeatable=False)

    def _without_body(self) -> Finding:
        scratch = self.scratch
        if self._spares_others():
            return Finding("U11", "empty_delete_is_all", None, _NOT_TRIED, known=False)
        scratch.plant(scratch.document("canary", n=3))
        seen = scratch.ask(self._bare())
        if scratch.holds("canary", n=3):
            said = f"is refused (status {seen.status})" if refused(seen) else "removes nothing"
            return Finding("U11", "empty_delete_is_all", False, f"a DELETE without a body {said}")
        self.empty_is_all = True
        told = "a DELETE without a body removes everything: a proxy that drops bodies is a danger"
        return Finding("U11", "empty_delete_is_all", True, told, {"verify": "always"})

    def _spares_others(self) -> bool:
        """Whether there are documents that are not to be removed, or there may be."""
        if self.everything:
            return False
        return self.scratch.find({MARK: {"$exists": False}}, limit=1) != []

    def _bare(self) -> Call:
        return Call(
            "batchdelete", "DELETE", self.scratch.collection, "write", None, repeatable=False
        )

    def clean(self) -> int | None:
        """Remove what was planted, by whatever works; how many are left, None if not known."""
        try:
            return self._clean()
        except ConnectomeError:
            return None

    def _clean(self) -> int | None:
        scratch = self.scratch
        # Of earlier probes too, which may have ended before they came here.
        mine = {MARK: {"$exists": True}}
        if self.by_query or not self._spares_others():
            # Else its body may be lost on the way (U11), and it would mean everything.
            query = {} if self.everything else mine
            scratch.ask(endpoints.batch_delete(scratch.collection, query))
        left = scratch.find(mine)
        if left and self.empty_is_all and not self._spares_others():
            scratch.ask(self._bare())
            left = scratch.find(mine)
        if left and self.single is not None and not self.by_query:
            for _ in range(MAX_SINGLE_DELETES):
                if refused(scratch.ask(self._one(self.single, mine))):
                    break
            left = scratch.find(mine)
        return None if left is None else len(left)


_NOT_TRIED = "not tried: somebody else has written into the collection meanwhile"
