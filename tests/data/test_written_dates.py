"""Text of dates: what is one, and what only looks so."""

import datetime

import polars as pl
import pytest

from tiltflow.data.written_dates import is_date


@pytest.mark.parametrize(
    "span",
    [
        datetime.timedelta(0),
        datetime.timedelta(days=1),
        datetime.timedelta(days=-1, hours=2),
        datetime.timedelta(hours=30, minutes=5, seconds=1.25),
    ],
)
def test_spans_of_time_as_polars_writes_them(span):
    (text,) = pl.Series([span]).dt.to_string("iso")
    assert is_date(text)


@pytest.mark.parametrize("text", ["P", "PT", "-P", "P1", "PS", "T1H", "PTH", "p", "pine", "PD"])
def test_what_is_no_span_of_time(text):
    assert not is_date(text)


@pytest.mark.parametrize("text", ["2026-01-02", "1 Feb 2020", "12:30", "2026-01-02T10:00:00+01:00"])
def test_dates_and_times(text):
    assert is_date(text)
    assert not is_date(1.5)
