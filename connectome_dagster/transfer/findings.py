"""What a probe found out about a service, question by question. Values only.

Knows the questions' names and how they are said as JSON; whoever asks fills the values in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from connectome_dagster.transfer.report import Guarantee

# "U1" to "U14": an open question of the API. "marks": whether documents can be found by the note
# that this package puts into them, which the guarantee "verified" is made of.
Question: TypeAlias = Literal[
    "U1", "U2", "U3", "U4", "U5", "U6", "U7", "U8", "U9", "U10", "U11", "U12", "U13", "U14", "marks"
]
Value: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Attributes:
        question: which one.
        name: the short name of what was asked, `"page_cap"` for one.
        value: what was found; None also where there is nothing of the kind.
        seen: what was seen, in a sentence.
        settings: what to set because of it, by the names of `Connectome`.
        known: whether it could be found out.
    """

    question: Question
    name: str
    value: Value
    seen: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    known: bool = True


@dataclass(frozen=True)
class ProbeReport:
    """What a probe found out.

    Attributes:
        collection: the scratch collection that it worked in.
        findings: one for each thing that was asked, in the order of the questions.
        guarantee: the strongest one within reach of this account; see `docs/writing.md`.
        why: what that rests on, in a sentence.
        left: documents of the probe that could not be removed; None if that is not known.
        requests: HTTP requests that were sent.
        seconds: wall time.
    """

    collection: str
    findings: tuple[Finding, ...]
    guarantee: Guarantee
    why: str
    left: int | None
    requests: int
    seconds: float

    def __getitem__(self, name: str) -> Finding:
        """The finding of a name.

        Raises:
            KeyError: there is none.
        """
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(name)

    @property
    def settings(self) -> dict[str, Any]:
        """What to give to `Connectome`, or to a resource, because of all findings."""
        merged: dict[str, Any] = {}
        for finding in self.findings:
            merged.update(finding.settings)
        return merged

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {**asdict(self), "settings": self.settings}
