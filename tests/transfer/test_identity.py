from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.transfer import identity
from connectome_dagster.transfer.identity import (
    DigestSet,
    RowKeys,
    attempt,
    attempt_token,
    load_id,
    prefixes_of,
)

LOAD = load_id("movies", "2026-11-23")
contents = st.lists(st.sampled_from([b'{"a":%d}' % n for n in range(6)]), max_size=30)


class TestLoads:
    def test_a_load_is_told_by_collection_and_scope_alone(self) -> None:
        assert load_id("movies", "monday") == load_id("movies", "monday")
        ids = {load_id(*each) for each in [("movies", "monday"), ("movies", "tuesday"),
                                           ("shows", "monday"), ("moviesm", "onday")]}  # fmt: skip
        assert len(ids) == 4
        assert all(len(each) == 24 and set(each) <= set("0123456789abcdef") for each in ids)


class TestAttempts:
    @given(
        moments=st.lists(st.integers(0, 2**44 - 2), min_size=2, max_size=2, unique=True),
        bits=st.lists(st.integers(0, 2**32), min_size=2, max_size=2),
        numbers=st.lists(st.integers(1, 255), min_size=2, max_size=2),
    )
    def test_a_later_run_s_attempts_are_greater(
        self, moments: list[int], bits: list[int], numbers: list[int]
    ) -> None:
        earlier, later = (
            attempt_token(now, each) for now, each in zip(sorted(moments), bits, strict=True)
        )
        assert len(earlier) == len(later) == 16
        assert attempt(earlier, numbers[0]) < later < attempt(later, numbers[1])

    def test_a_run_s_attempts_rise_and_stay_its_own(self) -> None:
        token = attempt_token(1_800_000_000_000, 5)
        tried = [attempt(token, number) for number in (1, 2, 16, 255, 4000)]
        assert tried == sorted(tried)
        assert all(token <= each <= f"{token}ff" for each in tried)

    def test_a_clock_that_is_behind_does_not_make_a_run_an_earlier_one(self) -> None:
        ahead = attempt(attempt_token(1_800_000_000_000, 0xFFFFF), 255)
        assert attempt_token(5, 0, seen=ahead) > ahead

    @pytest.mark.parametrize("seen", ["", "not one of ours", "zz"])
    def test_what_is_no_attempt_of_ours_is_not_looked_at(self, seen: str) -> None:
        assert attempt_token(7, 1, seen=seen) == attempt_token(7, 1)


class TestRowKeys:
    @given(rows=contents, cuts=st.lists(st.integers(0, 30), max_size=4))
    def test_a_row_s_key_does_not_depend_on_where_the_rows_are_cut(
        self, rows: list[bytes], cuts: list[int]
    ) -> None:
        whole = RowKeys(LOAD).take(rows)
        keys = RowKeys(LOAD)
        bounds = [0, *sorted(cuts), len(rows)]
        parts = [key for begin, end in pairwise(bounds) for key in keys.take(rows[begin:end])]
        assert parts == whole
        assert len(set(whole)) == len(whole) == len(keys)

    @given(rows=contents, order=st.randoms(use_true_random=False))
    def test_the_same_rows_in_another_order_have_the_same_keys(
        self, rows: list[bytes], order: st.DataObject
    ) -> None:
        shuffled = list(rows)
        order.shuffle(shuffled)  # type: ignore[attr-defined]  # a random.Random
        assert Counter(RowKeys(LOAD).take(rows)) == Counter(RowKeys(LOAD).take(shuffled))

    def test_another_load_has_other_keys(self) -> None:
        rows = [b'{"a":1}', b'{"a":1}']
        assert not set(RowKeys(LOAD).take(rows)) & set(RowKeys("0" * 24).take(rows))

    @given(rows=contents, others=contents)
    def test_keys_of_the_frame_are_told_from_others_and_seen_once(
        self, rows: list[bytes], others: list[bytes]
    ) -> None:
        keys = RowKeys(LOAD)
        mine = [key.decode() for key in keys.take(rows)]
        theirs = [key.decode() for key in RowKeys(LOAD).take(others)]
        known = keys.known()
        assert known.missing() == len(mine)
        if theirs:
            ours, before = known.see(prefixes_of([*theirs, theirs[0]]))
            assert ours.tolist() == [key in mine for key in [*theirs, theirs[0]]]
            assert before.tolist() == [*[False] * len(theirs), theirs[0] in mine]
        assert known.missing() == len(set(mine) - set(theirs))
        if mine:
            known.see(prefixes_of(mine))
            assert known.see(prefixes_of(mine))[1].all()
        assert known.missing() == 0


class TestDigestSet:
    @given(st.lists(st.lists(st.integers(0, 9), max_size=20), max_size=8))
    def test_it_counts_as_a_counter_does(self, chunks: list[list[int]]) -> None:
        seen = DigestSet()
        counter: Counter[int] = Counter()
        for chunk in chunks:
            expected = []
            for digest in chunk:
                expected.append(counter[digest])
                counter[digest] += 1
            assert seen.add(np.array(chunk, dtype=np.uint64)).tolist() == expected
        assert len(seen) == counter.total()

    def test_runs_stay_bounded_and_few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(identity, "RUN_KEYS", 64)
        seen = DigestSet()
        for first in range(0, 1000, 10):
            seen.add(np.arange(first, first + 10, dtype=np.uint64))
        assert max(map(len, seen.runs)) <= 64
        assert len(seen.runs) < 40
        assert seen.count(np.arange(1000, dtype=np.uint64)).tolist() == [1] * 1000
