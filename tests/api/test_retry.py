from __future__ import annotations

from datetime import datetime, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.api.retry import RetryPolicy, parse_retry_after
from connectome_dagster.errors import ConfigurationError


def delays(policy: RetryPolicy, unit: float, retry_after: float | None = None) -> list[float]:
    seen = []
    while (step := policy.next(unit, retry_after)) is not None:
        seen.append(step.delay)
        policy = step.policy
    return seen


def test_waits_double_up_to_the_longest() -> None:
    policy = RetryPolicy(max_attempts=7, base_delay=0.5, max_delay=5.0)
    assert delays(policy, 1.0) == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_one_attempt_means_no_second() -> None:
    assert RetryPolicy(max_attempts=1).next(0.5) is None


def test_a_step_leaves_the_policy_it_came_from_unchanged() -> None:
    policy = RetryPolicy()
    policy.next(0.5)
    assert policy == RetryPolicy()


def test_a_service_that_asks_for_more_patience_than_there_is_ends_it() -> None:
    policy = RetryPolicy(max_retry_after=60.0)
    assert policy.next(0.5, 60.0) is not None
    assert policy.next(0.5, 60.1) is None


@given(
    st.integers(1, 300),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.floats(0, 1),
    st.none() | st.floats(0, 60),
)
def test_attempts_are_counted_and_waits_are_bounded(
    attempts: int, base: float, longest: float, unit: float, retry_after: float | None
) -> None:
    policy = RetryPolicy(attempts, base, longest)
    waits = delays(policy, unit, retry_after)
    assert len(waits) == attempts - 1
    assert all((retry_after or 0) <= wait <= max(longest, retry_after or 0) for wait in waits)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_attempts": 0},
        {"max_attempts": 2.0},
        {"max_attempts": True},
        {"base_delay": -1.0},
        {"max_delay": float("nan")},
        {"max_retry_after": float("inf")},
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        RetryPolicy(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("17", 17.0),
        (" 17 ", 17.0),
        ("1.5", 1.5),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 37.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 37.0),
        ("Sun Nov  6 08:49:37 1994", 37.0),
        ("Sun, 06 Nov 1994 08:48:00 GMT", 0.0),
        (None, None),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("\u0661\u0662", None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
    ],
)
def test_retry_after_is_read_in_seconds_and_in_all_forms_of_a_date(
    value: str | None, seconds: float | None
) -> None:
    now = datetime(1994, 11, 6, 8, 49, 0, tzinfo=timezone.utc).timestamp()
    assert parse_retry_after(value, now) == seconds


@given(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)), st.integers(0, 10**6))
def test_a_date_is_as_far_away_as_it_is(now: datetime, ahead: int) -> None:
    start = now.replace(microsecond=0, tzinfo=timezone.utc)
    then = datetime.fromtimestamp(start.timestamp() + ahead, tz=timezone.utc)
    assert parse_retry_after(format_datetime(then, usegmt=True), start.timestamp()) == ahead


@given(st.text())
def test_any_header_is_a_number_from_zero_or_nothing(value: str) -> None:
    seconds = parse_retry_after(value, 0.0)
    assert seconds is None or seconds >= 0
