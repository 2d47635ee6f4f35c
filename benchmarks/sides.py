"""Runs one side once, in an interpreter of its own: `python -m benchmarks.sides`.

Prints what it cost as one line of JSON. Before that the side handles a few documents, so that lazy
imports are not measured. Knows neither rows nor targets.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from benchmarks import reading, writing
from benchmarks.cost import measured
from benchmarks.proof import digest
from benchmarks.replay import SINK
from benchmarks.side import Did, Side

# A collection of the replaying server with the documents that a side handles at first.
FEW = "few"
FEW_ROWS = 10

SIDES: dict[str, Side] = {**reading.SIDES, **writing.SIDES}


def run_side(
    name: str, address: str, collection: str, frame_file: str = "", *, prove: bool
) -> dict[str, Any]:
    """Run a side once and say what it cost, how many rows went through and, if asked, which.

    Args:
        name: of the side.
        address: of the replaying server.
        collection: what is read; a write takes the frame instead.
        frame_file: the pickled DataFrame that is written.
        prove: whether to do it again and tell the digest of the documents.
    """
    side = SIDES[name]
    frame, few, everything = None, FEW, collection
    if side.rows is not None:
        import pandas as pd  # the sides that read pay for their own imports

        frame = pd.read_pickle(frame_file)
        frame = frame.head(side.rows) if side.rows else frame
        frame = side.change(frame) if side.change is not None else frame
        few, everything = SINK, side.writes_to
    side.run(address, few, None if frame is None else frame.head(FEW_ROWS))
    if side.prepare is not None:
        side.prepare(address, everything)
    made, cost = measured(lambda: side.run(address, everything, frame))
    told = made if isinstance(made, Did) else Did(made if isinstance(made, int) else len(made))
    del made
    proof = digest(side.documents(address, everything, frame)) if prove else None
    return {**asdict(cost), **asdict(told), "digest": proof}


if __name__ == "__main__":
    side_name, asked, pickled, proving, server = sys.argv[1:]
    print(json.dumps(run_side(side_name, server, asked, pickled, prove=proving == "prove")))
