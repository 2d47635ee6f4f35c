from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from connectome_dagster.transfer.flight import Landing, in_flight


def double(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} is below 0")
    return 2 * number


def test_every_item_lands_once() -> None:
    landings = list(in_flight(double, range(50), 4))
    assert sorted((each.item, each.result) for each in landings) == [(n, 2 * n) for n in range(50)]
    assert all(each.error is None for each in landings)


def test_nothing_to_call_for_is_nothing() -> None:
    assert list(in_flight(double, [], 3)) == []


@pytest.mark.parametrize("concurrency", [1, 2, 5])
def test_calls_run_together_and_never_more_than_allowed(concurrency: int) -> None:
    together = threading.Barrier(concurrency)
    now, most, lock = 0, 0, threading.Lock()

    def call(_item: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait(10)
        with lock:
            now -= 1

    assert len(list(in_flight(call, range(concurrency * 6), concurrency))) == concurrency * 6
    assert most == concurrency


def test_after_a_failure_no_item_is_taken_but_what_flies_lands() -> None:
    taken: list[int] = []
    failing = threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    def call(number: int) -> int:
        if number == 1:
            failing.set()
            raise ValueError("no")
        assert failing.wait(10)
        return number

    landings: list[Landing[int, int]] = list(in_flight(call, items(), 3))
    assert {each.item for each in landings} == set(taken)
    assert len(taken) < 10
    assert [each.item for each in landings if each.error is not None] == [1]


def test_an_item_that_cannot_be_had_is_told_after_everything_landed() -> None:
    release = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        yield 2
        release.set()
        raise LookupError("the source is gone")

    def call(number: int) -> int:
        assert release.wait(10)
        return double(number)

    landings = in_flight(call, items(), 5)
    assert {next(landings).result, next(landings).result} == {2, 4}
    with pytest.raises(LookupError, match="the source is gone"):
        next(landings)


def test_items_are_taken_only_when_there_is_room() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    landings = in_flight(double, items(), 2)
    next(landings)
    assert taken <= 2
    landings.close()


def test_no_thread_is_left_when_nobody_listens_any_more() -> None:
    before = threading.active_count()
    landings = in_flight(double, iter(range(100)), 4)
    next(landings)
    landings.close()
    assert threading.active_count() == before


def test_the_end_of_the_process_is_no_failure_to_report() -> None:
    def call(_item: int) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        list(in_flight(call, [1], 1))
