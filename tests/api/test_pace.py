from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.api.pace import FIRST_LEVEL, Gate, Pace

limits = st.integers(1, 40)


def serve(pace: Pace, now: float, seconds: float) -> float:
    """Fill the level with calls that all take so long; returns when they have landed."""
    tickets = []
    while pace.has_room:
        tickets.append(pace.depart(now))
    for ticket in tickets:
        pace.land(ticket, now + seconds, success=True)
    return now + seconds


@given(limits)
def test_it_starts_small_and_doubles_to_the_limit_while_that_helps(limit: int) -> None:
    pace = Pace(limit)
    assert pace.level == min(FIRST_LEVEL, limit)
    now = 0.0
    for expected in (8, 16, 32, 64):
        now = serve(pace, now, 0.01)
        assert pace.level == min(expected, limit)


def test_it_stops_doubling_when_more_brings_nothing_and_grows_by_one() -> None:
    pace = Pace(100)
    now = 0.0
    levels = []
    for _ in range(5):
        now = serve(pace, now, pace.level * 0.01)  # the service does one after the other
        levels.append(pace.level)
    assert levels == [8, 9, 10, 11, 12]


def test_a_level_that_is_not_used_does_not_grow() -> None:
    pace = Pace(100)
    for moment in range(50):
        ticket = pace.depart(float(moment))
        pace.land(ticket, moment + 0.5, success=True)
    assert pace.level == FIRST_LEVEL


def test_time_in_which_nothing_flies_does_not_count() -> None:
    pace = Pace(64)
    now = 0.0
    for _ in range(4):
        now = serve(pace, now, 0.01) + 3600.0
    assert pace.level == 64


def test_from_one_at_a_time_it_recovers() -> None:
    pace = Pace(8)
    for _ in range(4):
        pace.push_back(pace.depart(0.0), 0.0)
    assert pace.level == 1
    now = 1.0
    for _ in range(7):
        now = serve(pace, now, 0.01)
    assert pace.level == 8


@given(limits, st.integers(1, 40))
def test_a_round_that_is_pushed_back_halves_once(limit: int, pushed: int) -> None:
    pace = Pace(limit)
    now = serve_up(pace)
    level = pace.level
    tickets = [pace.depart(now) for _ in range(level)]
    for ticket in tickets[:pushed]:
        pace.push_back(ticket, now + 1)
    assert pace.level == max(1, level // 2)
    for ticket in tickets[pushed:]:
        pace.land(ticket, now + 2, success=True)  # of the old round: proves nothing of the new one
    assert pace.level == max(1, level // 2)
    pace.push_back(pace.depart(now + 3), now + 4)
    assert pace.level == max(1, max(1, level // 2) // 2)


def serve_up(pace: Pace) -> float:
    now = 0.0
    for _ in range(6):
        now = serve(pace, now, 0.01)
    return now


@given(limits, st.lists(st.tuples(st.sampled_from("dsfp"), st.floats(0, 10))))
def test_whatever_happens_the_level_stays_in_its_bounds(
    limit: int, events: list[tuple[str, float]]
) -> None:
    pace = Pace(limit)
    flying: list[int] = []
    now = 0.0
    for event, passed in events:
        now += passed
        before = pace.level
        if event == "d" and pace.has_room:
            flying.append(pace.depart(now))
        elif event == "s" and flying:
            pace.land(flying.pop(0), now, success=True)
            assert before <= pace.level <= 2 * before
        elif event == "f" and flying:
            pace.land(flying.pop(), now, success=False)
            assert pace.level == before
        elif event == "p" and flying:
            pace.push_back(flying.pop(), now)
            assert pace.level in (before, max(1, before // 2))
        assert 1 <= pace.level <= limit
        assert pace.flying == len(flying) <= limit


@given(st.lists(st.floats(0, 1e6)))
def test_the_longest_hold_counts(moments: list[float]) -> None:
    pace = Pace(4)
    for moment in moments:
        pace.hold(moment)
    assert pace.held_until == max(moments, default=0.0)


@pytest.mark.parametrize("limit", [1, 3])
def test_a_gate_lets_through_what_may_fly_and_nobody_waits_for_ever(limit: int) -> None:
    gate = Gate(limit)
    now = most = 0
    lock = threading.Lock()

    def one(number: int) -> None:
        nonlocal now, most
        ticket = gate.enter()
        with lock:
            now += 1
            most = max(most, now)
        with lock:
            now -= 1
        if number % 7 == 0:
            gate.withdraw()
        else:
            gate.leave(ticket, success=number % 2 == 0, pushed_back=number % 5 == 0)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(one, range(500)))
    assert 1 <= most <= limit
    assert gate.pace.flying == 0


def test_a_gate_wakes_as_many_as_there_is_room_for_when_the_level_rises() -> None:
    gate = Gate(8, clock=lambda: 0.0)
    first = [gate.enter() for _ in range(4)]
    entered = threading.Semaphore(0)

    def one() -> None:
        gate.enter()
        entered.release()

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for ticket in first:
        gate.leave(ticket, success=True, pushed_back=False)
    for _ in range(8):
        assert entered.acquire(timeout=10)
    for thread in threads:
        thread.join(10)
    assert gate.pace.level == 8


def test_a_hold_is_from_now_on() -> None:
    gate = Gate(1, clock=lambda: 100.0)
    gate.hold(5.0)
    gate.hold(2.0)
    assert gate.pace.held_until == 105.0
